-- Contexts: archives that `COPY` takes from. The archive itself lies in the object store CONTEXTS, under its digest; no
-- object is there without a row here, and a row whose object is not there yet, or was lost, is no context.

CREATE TABLE contexts (
    -- sha256 of the archive.
    digest         text PRIMARY KEY CHECK (digest ~ '^[0-9a-f]{64}$'),
    size_bytes     bigint NOT NULL CHECK (size_bytes >= 0),
    -- What it holds, and how large that is when it is unpacked.
    entries        bigint NOT NULL CHECK (entries >= 0),
    unpacked_bytes bigint NOT NULL CHECK (unpacked_bytes >= 0),
    uploaded_by    text NOT NULL,
    uploaded_at    timestamptz NOT NULL DEFAULT now(),
    -- Uploaded again, or named by a new build.
    used_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX contexts_used ON contexts (used_at);

-- Builds that still need theirs.
CREATE INDEX template_builds_context ON template_builds (context_digest)
    WHERE context_digest IS NOT NULL AND status IN ('queued', 'running', 'cancelling');

-- No build begins with a context that is gone. Its row is locked against the sweep, which removes a context only when it
-- was not used for long and no build names it.
CREATE FUNCTION context_is_there() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.context_digest IS NULL THEN
        RETURN NEW;
    END IF;
    UPDATE contexts SET used_at = now() WHERE digest = NEW.context_digest;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'context % does not exist', NEW.context_digest
            USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'context_is_there';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER context_is_there BEFORE INSERT ON template_builds
    FOR EACH ROW EXECUTE FUNCTION context_is_there();
