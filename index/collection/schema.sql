-- The database of one collection: the truth of which the catalog and the vectors in memory are views.
-- Offsets count characters of documents.text, ends excluded.

-- The text comes last: whoever reads the columns before it does not touch its pages.
-- AUTOINCREMENT: the number of a deleted document never becomes another's.
CREATE TABLE documents (
    number INTEGER PRIMARY KEY AUTOINCREMENT,   -- what catalog and vectors know it by; kept when it is replaced
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    filename TEXT NOT NULL,         -- as people know it
    file_id TEXT UNIQUE,            -- of the upload that it was made from
    title TEXT NOT NULL,
    version INTEGER NOT NULL,       -- one more with each replacement
    sha256 TEXT NOT NULL,           -- of the file
    media_type TEXT NOT NULL,
    splitting TEXT NOT NULL,        -- JSON: the sizes that it was split by
    allow TEXT,                     -- JSON list of principals; NULL: everyone in the project
    attributes TEXT NOT NULL,       -- JSON object
    created_at INTEGER NOT NULL,
    first_passage INTEGER NOT NULL, -- its passages' ids are this one and the following
    passages INTEGER NOT NULL,
    characters INTEGER NOT NULL,
    text TEXT NOT NULL
) STRICT;

-- Covers what opening a view asks: which passages are there, and whose.
CREATE UNIQUE INDEX documents_by_passage ON documents (first_passage, passages);

CREATE TABLE pages (
    document INTEGER NOT NULL REFERENCES documents (number) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    start_char INTEGER NOT NULL,
    end_char INTEGER NOT NULL,
    PRIMARY KEY (document, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE passages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    document INTEGER NOT NULL REFERENCES documents (number) ON DELETE CASCADE,
    start_char INTEGER NOT NULL,
    end_char INTEGER NOT NULL,
    page INTEGER,
    heading TEXT NOT NULL,
    context TEXT NOT NULL,          -- what was put before the text when it was encoded
    tokens INTEGER NOT NULL
) STRICT;

CREATE INDEX passages_by_document ON passages (document);

-- The words of context and text, under the passage's id. Without content of its own: what leaves it has to be
-- told with the words that it holds.
CREATE VIRTUAL TABLE words USING fts5 (text, content = '', tokenize = 'porter unicode61 remove_diacritics 2');

-- Views of it: a row for each occurrence of a word, in the order of the passages; and how often each word occurs.
CREATE VIRTUAL TABLE word_occurrences USING fts5vocab (words, instance);
CREATE VIRTUAL TABLE word_counts USING fts5vocab (words, row);

-- A generation is all passages as one encoder sees them. Its vectors are in a table vectors_NUMBER of its own,
-- which goes at once when another generation takes its place.
CREATE TABLE generations (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    encoder TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    dimension INTEGER,              -- NULL until the first vector
    active INTEGER NOT NULL         -- 1 for exactly one
) STRICT;

CREATE UNIQUE INDEX one_active_generation ON generations (active) WHERE active = 1;

-- Vectors of questions as they were asked, the newest of them: what the index is measured and tuned with.
CREATE TABLE recorded_queries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    vector BLOB NOT NULL            -- float32, little-endian, of the active generation
) STRICT;

-- Covers the order in which documents are listed.
CREATE INDEX documents_by_time ON documents (created_at, number);

-- Uploads attached by an API client, each a request of its own: what is to be done, durable before it is
-- acknowledged, and what became of it. A completed one whose document is gone counts for nothing.
CREATE TABLE attachments (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    file_id TEXT NOT NULL,
    batch TEXT REFERENCES batches (id),
    filename TEXT NOT NULL,
    allow TEXT,                     -- that the document will have, as its own columns are; where there is a
    attributes TEXT NOT NULL,       -- document already, it has them too
    splitting TEXT NOT NULL,        -- JSON: sizes that were asked for, null for those of the settings
    status TEXT NOT NULL,           -- in_progress, completed, failed or cancelled
    error_code TEXT,
    error_message TEXT,
    created_at INTEGER NOT NULL,
    newest INTEGER NOT NULL         -- 1 for the last request of its file
) STRICT;

CREATE INDEX attachments_by_file ON attachments (file_id, sequence);
CREATE INDEX attachments_by_batch ON attachments (batch, created_at, sequence) WHERE batch IS NOT NULL;
CREATE INDEX newest_attachments ON attachments (created_at, sequence) WHERE newest = 1;
CREATE INDEX waiting_attachments ON attachments (sequence) WHERE status = 'in_progress';

CREATE TABLE batches (
    id TEXT PRIMARY KEY,
    cancelled INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

PRAGMA user_version = 2;
