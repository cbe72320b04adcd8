//! The controller: persistence, listener and administration around the controller machine.
