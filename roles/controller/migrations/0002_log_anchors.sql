-- Where a log begins once its oldest rows are gone: the number and the hash of the last one that is.
CREATE TABLE log_anchors (
    log TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
