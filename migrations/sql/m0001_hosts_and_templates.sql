-- Hosts as the bridges' poll sees them, and the catalogue of templates.

CREATE TABLE hosts (
    id          uuid PRIMARY KEY,
    address     text NOT NULL UNIQUE,
    server_name text NOT NULL,
    status      text NOT NULL DEFAULT 'pending'
                CHECK (status IN ('pending', 'online', 'draining', 'unreachable')),
    -- {"vcpus","memory_mb","max_sandbox_vcpus","max_sandbox_memory_mb","disk_free_bytes"}
    capacity    jsonb NOT NULL DEFAULT '{}',
    -- {"vcpus","memory_mb","sandboxes"}, as the agent counts them
    allocated   jsonb NOT NULL DEFAULT '{}',
    labels      jsonb NOT NULL DEFAULT '{}',
    -- {"agent","qemu","kernel","accelerator","accelerator_reason","storage"}
    versions    jsonb NOT NULL DEFAULT '{}',
    heartbeat   timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE templates (
    id               uuid PRIMARY KEY,
    name             text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    -- The tag that it was published under; where the tags point now stands in template_tags.
    tag              text NOT NULL CHECK (length(tag) BETWEEN 1 AND 128),
    type             text NOT NULL CHECK (type IN ('image', 'snapshot')),
    host_name        text NOT NULL,
    vcpus            integer NOT NULL CHECK (vcpus > 0),
    memory_mb        integer NOT NULL CHECK (memory_mb > 0),
    size_bytes       bigint NOT NULL DEFAULT 0 CHECK (size_bytes >= 0),
    base_template_id uuid REFERENCES templates (id),
    build_id         uuid,
    default_user     text,
    default_env      jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(default_env) = 'object'),
    digest           text,
    provenance       jsonb NOT NULL DEFAULT '{}',
    created_at       timestamptz NOT NULL DEFAULT now(),
    deleted_at       timestamptz
);
-- A build publishes once, whatever happens to its runners.
CREATE UNIQUE INDEX templates_build ON templates (build_id) WHERE build_id IS NOT NULL;
CREATE UNIQUE INDEX templates_host_name ON templates (host_name) WHERE deleted_at IS NULL;
CREATE INDEX templates_cursor ON templates (created_at DESC, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX templates_name ON templates (name, created_at DESC) WHERE deleted_at IS NULL;

-- Where each tag points, and where it pointed before: the row without superseded_at is the present.
CREATE TABLE template_tags (
    id            uuid PRIMARY KEY,
    name          text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    tag           text NOT NULL CHECK (length(tag) BETWEEN 1 AND 128),
    template_id   uuid NOT NULL REFERENCES templates (id),
    set_by        text NOT NULL,
    set_at        timestamptz NOT NULL DEFAULT now(),
    superseded_at timestamptz
);
CREATE UNIQUE INDEX template_tags_now ON template_tags (name, tag) WHERE superseded_at IS NULL;
CREATE INDEX template_tags_history ON template_tags (name, tag, set_at DESC);
CREATE INDEX template_tags_template ON template_tags (template_id);

CREATE TABLE template_placements (
    template_id uuid NOT NULL REFERENCES templates (id),
    host_id     uuid NOT NULL REFERENCES hosts (id),
    -- deleting: to be removed from the host as soon as it answers; missing: the host lost it.
    state       text NOT NULL CHECK (state IN ('present', 'deleting', 'missing')),
    bytes       bigint NOT NULL DEFAULT 0 CHECK (bytes >= 0),
    seen_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (template_id, host_id)
);
CREATE INDEX template_placements_host ON template_placements (host_id, state);
