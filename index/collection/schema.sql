-- The database of one collection: the truth of which the vector index is a view.
-- Offsets count characters of documents.text, ends excluded.

CREATE TABLE documents (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL,
    version INTEGER NOT NULL,       -- one more with each replacement
    sha256 TEXT NOT NULL,           -- of the file
    media_type TEXT NOT NULL,
    text TEXT NOT NULL,
    allow TEXT,                     -- JSON list of principals; NULL: everyone in the project
    attributes TEXT NOT NULL,       -- JSON object
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE pages (
    document_id TEXT NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    start_char INTEGER NOT NULL,
    end_char INTEGER NOT NULL,
    PRIMARY KEY (document_id, number)
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT: the id of a deleted passage never becomes another's.
CREATE TABLE passages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    document_id TEXT NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    start_char INTEGER NOT NULL,
    end_char INTEGER NOT NULL,
    page INTEGER,
    heading TEXT NOT NULL,
    embedding BLOB NOT NULL         -- float32, little-endian, length 1
) STRICT;

CREATE UNIQUE INDEX passages_by_document ON passages (document_id, position);

PRAGMA user_version = 1;
