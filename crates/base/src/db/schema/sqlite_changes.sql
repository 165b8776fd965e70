-- When each row was last written, as in PostgreSQL. Writers take turns, so the stamps are in the order of the commits, and
-- each is given once. They are in microseconds since 1970.
CREATE TABLE IF NOT EXISTS fedgate_change_clock (
    "only" INTEGER PRIMARY KEY DEFAULT 1 CHECK ("only" = 1),
    last INTEGER NOT NULL
);
INSERT OR IGNORE INTO fedgate_change_clock ("only", last) VALUES (1, 0);
CREATE TABLE IF NOT EXISTS fedgate_change_times (written TEXT PRIMARY KEY, begun INTEGER NOT NULL) WITHOUT ROWID;
