-- Sandboxes over REST: who works on one, which of two words about it is the newer one, and templates made of them.

ALTER TABLE sandboxes
    ADD COLUMN disk_mb       integer CHECK (disk_mb > 0),
    -- Raised by every change of the status: whoever writes names the revision that it has seen.
    ADD COLUMN revision      bigint NOT NULL DEFAULT 1,
    ADD COLUMN status_since  timestamptz NOT NULL DEFAULT now(),
    -- A call to the host is under way until then at the latest; the sweep leaves the row alone.
    ADD COLUMN busy_until    timestamptz,
    -- The template that it becomes, or became.
    ADD COLUMN snapshot_id   uuid,
    ADD COLUMN snapshot_name text CHECK (snapshot_name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    ADD COLUMN snapshot_tag  text CHECK (length(snapshot_tag) BETWEEN 1 AND 128),
    DROP CONSTRAINT sandboxes_status_check,
    ADD CONSTRAINT sandboxes_status_check CHECK (status IN (
        'creating', 'running', 'pausing', 'paused', 'resuming', 'saving', 'destroying', 'destroyed', 'failed')),
    ADD CONSTRAINT end_has_a_time CHECK ((status IN ('destroyed', 'failed')) = (destroyed_at IS NOT NULL)),
    ADD CONSTRAINT failed_has_a_reason CHECK (status <> 'failed' OR reason IS NOT NULL),
    ADD CONSTRAINT saving_has_a_name CHECK (
        status <> 'saving'
        OR (snapshot_id IS NOT NULL AND snapshot_name IS NOT NULL AND snapshot_tag IS NOT NULL));

-- Those that a host may have something of.
DROP INDEX sandboxes_host;
CREATE INDEX sandboxes_host ON sandboxes (host_id) WHERE destroyed_at IS NULL;
CREATE INDEX sandboxes_requester_cursor ON sandboxes (requested_by, created_at DESC, id DESC);
CREATE INDEX sandboxes_snapshot ON sandboxes (snapshot_id) WHERE status = 'saving';
