"""Tables of the ledger: heads, index of all records, positions, quarantine, index of blobs."""

from alembic import op

revision = "0001"
down_revision = None

TABLES = """
CREATE TABLE ledger.positions (
    partition   int PRIMARY KEY,
    next_offset bigint NOT NULL DEFAULT 0,
    digest      text,                          -- of the last folded record: is it still the same log?
    present     bool NOT NULL DEFAULT false,   -- reached the log's end as seen at the start of the projector
    stopped     text,                          -- why the projector gave this partition up
    owner       text,                          -- who folds it; every transaction checks it
    log_id      text,
    generation  int,
    base        bigint,
    partitions  int
) WITH (fillfactor = 50);

CREATE FUNCTION ledger.fenced() RETURNS timestamptz LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'another projector folds this partition, or its position was reset' USING ERRCODE = 'AL001';
END $$;

CREATE TABLE ledger.heads (
    key       text PRIMARY KEY,
    partition int NOT NULL,
    facts     bigint NOT NULL,                 -- accepted facts of the aggregate so far
    head      json NOT NULL                    -- json keeps the order of the runs
) WITH (fillfactor = 70);

CREATE TABLE ledger.log_index (
    partition   int NOT NULL,
    "offset"    bigint NOT NULL,
    key         text NOT NULL,
    event_id    text NOT NULL,
    append_id   text NOT NULL,
    body_sha256 text NOT NULL,
    stream      text NOT NULL,
    version     bigint,
    types       text[] NOT NULL,
    actor       json,
    occurred_at timestamptz,
    recorded_at timestamptz NOT NULL,
    verdict     text NOT NULL,
    detail      json NOT NULL,
    PRIMARY KEY (partition, "offset")
);
CREATE UNIQUE INDEX log_index_accepted ON ledger.log_index (key, event_id) WHERE verdict = 'accepted';
CREATE INDEX log_index_append ON ledger.log_index (key, append_id);

CREATE TABLE ledger.quarantine (
    model     text NOT NULL,
    key       text NOT NULL,
    partition int NOT NULL,
    "offset"  bigint NOT NULL,
    error     text NOT NULL,
    attempts  int NOT NULL DEFAULT 0,
    version   bigint NOT NULL,                 -- version, ordinal, ended: what applying the commit again needs
    ordinal   bigint NOT NULL,
    ended     text[] NOT NULL,
    PRIMARY KEY (model, key, partition, "offset")
);

CREATE INDEX quarantine_key ON ledger.quarantine (key);

CREATE TABLE ledger.blob_index (
    sha256       text PRIMARY KEY,
    partition    int NOT NULL,
    first_offset bigint NOT NULL,
    parts        int NOT NULL,
    size         bigint NOT NULL
);
CREATE TABLE ledger.blob_positions (
    partition   int PRIMARY KEY,
    next_offset bigint NOT NULL
);

CREATE TABLE ledger.read_models (
    name    text PRIMARY KEY,
    version int NOT NULL
);
"""


def upgrade() -> None:
    """Create the tables."""
    op.execute(TABLES)


def downgrade() -> None:
    """Drop them: everything in them is folded from the log."""
    op.execute("DROP SCHEMA ledger CASCADE")
