-- What an admin decides about hosts, templates and tags.

ALTER TABLE hosts
    -- The wish outlives what the bridges' poll notes in status: a host that comes back goes on draining.
    ADD COLUMN drain_requested_at timestamptz,
    ADD COLUMN drain_requested_by text,
    -- The row of a deleted host stays, for the builds that ran there and so that its address stays away.
    ADD COLUMN deleted_at timestamptz;
UPDATE hosts SET drain_requested_at = now(), drain_requested_by = 'unknown' WHERE status = 'draining';
ALTER TABLE hosts ADD CONSTRAINT draining_was_asked_for CHECK (
    status <> 'draining' OR drain_requested_at IS NOT NULL
);
ALTER TABLE hosts ADD CONSTRAINT deleted_takes_nothing CHECK (
    deleted_at IS NULL OR status = 'unreachable'
);
CREATE INDEX hosts_cursor ON hosts (created_at DESC, id DESC) WHERE deleted_at IS NULL;

-- Who moved the tag on, or took it away.
ALTER TABLE template_tags ADD COLUMN superseded_by text;
CREATE INDEX template_tags_cursor ON template_tags (name, set_at DESC, id DESC);

-- Nothing new starts from a template that is deleted: it is locked here against its deletion, which looks for
-- what starts from it once it holds the lock of the row.
CREATE FUNCTION template_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wanted uuid;
BEGIN
    IF TG_TABLE_NAME = 'sandboxes' THEN
        wanted := NEW.template_id;
    ELSE
        wanted := NEW.base_template_id;
    END IF;
    PERFORM 1 FROM templates WHERE id = wanted AND deleted_at IS NULL FOR KEY SHARE;
    IF wanted IS NOT NULL AND NOT FOUND THEN
        RAISE EXCEPTION 'template % does not exist, or is deleted', wanted
            USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'template_is_kept';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER template_is_kept BEFORE INSERT ON template_builds
    FOR EACH ROW EXECUTE FUNCTION template_is_kept();
CREATE TRIGGER template_is_kept BEFORE INSERT ON sandboxes
    FOR EACH ROW EXECUTE FUNCTION template_is_kept();

-- How long the last builds of a name took.
CREATE INDEX template_builds_succeeded ON template_builds (name, completed_at DESC)
    WHERE status = 'succeeded';
