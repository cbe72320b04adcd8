CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    body TEXT NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE TABLE counters (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    counters BLOB NOT NULL
) STRICT;
CREATE TABLE devices (
    id BLOB PRIMARY KEY CHECK (length(id) = 32),
    name TEXT NOT NULL UNIQUE,
    address TEXT NOT NULL UNIQUE,
    ipv4 TEXT UNIQUE,
    pending INTEGER NOT NULL CHECK (pending IN (0, 1)),
    not_after INTEGER NOT NULL,
    record BLOB NOT NULL
) STRICT;
CREATE TABLE invites (
    key BLOB PRIMARY KEY CHECK (length(key) = 32),
    used_by BLOB CHECK (length(used_by) = 32),
    revoked INTEGER NOT NULL CHECK (revoked IN (0, 1)),
    record BLOB NOT NULL
) STRICT;
CREATE TABLE log_anchors (
    log TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE TABLE map_items (
    key BLOB PRIMARY KEY,
    version INTEGER NOT NULL UNIQUE,
    item BLOB NOT NULL
) STRICT;
CREATE TABLE security_events (
    sequence INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    body TEXT NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE TABLE settings (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    settings BLOB NOT NULL
) STRICT;
