-- Builds: the truth about them. Redis and NATS only carry what can be derived from these rows.

CREATE TABLE template_builds (
    id                   uuid PRIMARY KEY,
    name                 text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    tag                  text NOT NULL CHECK (length(tag) BETWEEN 1 AND 128),
    lane                 text NOT NULL DEFAULT 'default' CHECK (lane ~ '^[A-Za-z0-9_-]{1,64}$'),
    base_template        text NOT NULL,
    base_template_id     uuid REFERENCES templates (id),
    recipe               jsonb NOT NULL,
    plan                 jsonb NOT NULL,
    plan_digest          text NOT NULL,
    healthcheck          text,
    vcpus                integer NOT NULL CHECK (vcpus > 0),
    memory_mb            integer NOT NULL CHECK (memory_mb > 0),
    disk_mb              integer CHECK (disk_mb > 0),
    context_digest       text,
    skip_hooks           boolean NOT NULL DEFAULT false,

    status               text NOT NULL DEFAULT 'queued'
                         CHECK (status IN ('queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled')),
    attempt              integer NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    -- Attempts that ended by an expired lease. A release on drain is none of them.
    lost_attempts        integer NOT NULL DEFAULT 0 CHECK (lost_attempts >= 0),
    -- The runner of the attempt; kept at the end, so that a repeated finish is known again.
    lease_owner          uuid,
    lease_until          timestamptz,
    host_id              uuid REFERENCES hosts (id),
    sandbox_id           uuid,
    -- The sandbox of the attempt before, which this attempt destroys first when it is on the same host.
    previous_sandbox_id  uuid,
    -- The template that the present attempt writes.
    planned_template_id  uuid,

    current_step         integer NOT NULL DEFAULT 0 CHECK (current_step >= 0),
    total_steps          integer NOT NULL CHECK (total_steps >= 0),
    logs                 jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(logs) = 'array'),
    -- Highest stream sequence among the applied events of the present attempt.
    event_stream_seq     bigint NOT NULL DEFAULT 0,
    -- Highest record known to be in the log.
    log_seq              bigint NOT NULL DEFAULT 0 CHECK (log_seq >= 0),
    log_end_written      boolean NOT NULL DEFAULT false,

    -- The job of attempt + 1, as the relay published it; null when none is known.
    job_published_at     timestamptz,
    job_stream_seq       bigint,
    -- How often the sweep found that the job was gone; part of the message id, or the duplicate
    -- window of the stream would swallow the second one.
    job_resends          integer NOT NULL DEFAULT 0,
    trace                text NOT NULL DEFAULT '',

    reason               jsonb,
    template_id          uuid REFERENCES templates (id),
    requested_by         text NOT NULL,
    idempotency_key      text,
    retry_of             uuid REFERENCES template_builds (id),
    cancel_requested_at  timestamptz,
    cancel_requested_by  text,
    cancel_requested_why text,
    sandbox_destroyed_at timestamptz,
    created_at           timestamptz NOT NULL DEFAULT now(),
    queued_at            timestamptz NOT NULL DEFAULT now(),
    started_at           timestamptz,
    completed_at         timestamptz,

    CONSTRAINT running_has_a_lease CHECK (
        status NOT IN ('running', 'cancelling')
        OR (lease_owner IS NOT NULL AND lease_until IS NOT NULL
            AND host_id IS NOT NULL AND planned_template_id IS NOT NULL)
    ),
    CONSTRAINT terminal_has_an_end CHECK (
        (status IN ('succeeded', 'failed', 'cancelled')) = (completed_at IS NOT NULL)
    ),
    CONSTRAINT succeeded_has_a_template CHECK ((status = 'succeeded') = (template_id IS NOT NULL)),
    CONSTRAINT failed_has_a_reason CHECK (status <> 'failed' OR reason IS NOT NULL),
    CONSTRAINT cancelled_was_asked_for CHECK (
        status NOT IN ('cancelling', 'cancelled') OR cancel_requested_at IS NOT NULL
    )
) WITH (fillfactor = 80);

ALTER TABLE templates ADD CONSTRAINT templates_build_id_fkey
    FOREIGN KEY (build_id) REFERENCES template_builds (id);

CREATE UNIQUE INDEX template_builds_idempotency ON template_builds (requested_by, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX template_builds_cursor ON template_builds (created_at DESC, id DESC);
CREATE INDEX template_builds_status_cursor ON template_builds (status, created_at DESC, id DESC);
CREATE INDEX template_builds_name_cursor ON template_builds (name, created_at DESC, id DESC);
CREATE INDEX template_builds_queued ON template_builds (queued_at) WHERE status = 'queued';
CREATE INDEX template_builds_lease ON template_builds (lease_until)
    WHERE status IN ('running', 'cancelling');
CREATE INDEX template_builds_host ON template_builds (host_id)
    WHERE status IN ('running', 'cancelling');
CREATE INDEX template_builds_without_end ON template_builds (completed_at)
    WHERE completed_at IS NOT NULL AND NOT log_end_written;

-- The log, in compressed runs of consecutive records. A run is written once and never changed.
CREATE TABLE build_log_chunks (
    build_id   uuid NOT NULL REFERENCES template_builds (id) ON DELETE CASCADE,
    first_seq  bigint NOT NULL CHECK (first_seq > 0),
    last_seq   bigint NOT NULL,
    -- zstd of a JSON array of log records
    records    bytea NOT NULL,
    -- Stream sequence of the message that held last_seq: the tail of the log begins after it.
    stream_seq bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (build_id, first_seq),
    CHECK (last_seq >= first_seq)
);
-- Already compressed: spare Postgres the attempt.
ALTER TABLE build_log_chunks ALTER COLUMN records SET STORAGE EXTERNAL;
