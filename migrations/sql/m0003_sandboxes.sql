-- Sandboxes started from templates. Those of builds stand in template_builds.sandbox_id.

CREATE TABLE sandboxes (
    id             uuid PRIMARY KEY,
    template_id    uuid NOT NULL REFERENCES templates (id),
    host_id        uuid NOT NULL REFERENCES hosts (id),
    status         text NOT NULL
                   CHECK (status IN ('creating', 'running', 'pausing', 'paused', 'resuming', 'destroying', 'destroyed', 'failed')),
    vcpus          integer NOT NULL CHECK (vcpus > 0),
    memory_mb      integer NOT NULL CHECK (memory_mb > 0),
    host_ip        text,
    timeout_sec    integer NOT NULL DEFAULT 0 CHECK (timeout_sec >= 0),
    labels         jsonb NOT NULL DEFAULT '{}',
    requested_by   text NOT NULL,
    reason         jsonb,
    created_at     timestamptz NOT NULL DEFAULT now(),
    last_active_at timestamptz NOT NULL DEFAULT now(),
    destroyed_at   timestamptz
);
CREATE INDEX sandboxes_cursor ON sandboxes (created_at DESC, id DESC);
CREATE INDEX sandboxes_host ON sandboxes (host_id)
    WHERE status IN ('creating', 'running', 'pausing', 'resuming', 'destroying');
CREATE INDEX sandboxes_template ON sandboxes (template_id) WHERE destroyed_at IS NULL;

CREATE TABLE sandbox_metric_points (
    sandbox_id uuid NOT NULL REFERENCES sandboxes (id) ON DELETE CASCADE,
    range      text NOT NULL CHECK (range IN ('10m', '2h', '24h')),
    at         timestamptz NOT NULL,
    cpu_pct    double precision NOT NULL,
    mem_bytes  bigint NOT NULL,
    disk_bytes bigint NOT NULL,
    PRIMARY KEY (sandbox_id, range, at)
);
