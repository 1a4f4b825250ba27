-- A limit of running builds for each API key.

-- Since when a queued build waits because its key has as many builds as it may; a hint for people, as the relay saw it.
ALTER TABLE template_builds ADD COLUMN held_since timestamptz;

-- The builds of a key that run or wait.
CREATE INDEX template_builds_of_key ON template_builds (requested_by)
    WHERE status IN ('queued', 'running', 'cancelling');
