-- A build goes on where a runner left it; what is lost counts only without progress.

ALTER TABLE template_builds
    -- The attempt that last began from the first step; later ones went on with its sandbox and its template.
    ADD COLUMN fresh_attempt integer NOT NULL DEFAULT 1 CHECK (fresh_attempt >= 0),
    -- Highest step that any attempt had reached when it was lost. An attempt that comes further begins the
    -- count of lost ones anew.
    ADD COLUMN furthest_step integer NOT NULL DEFAULT 0 CHECK (furthest_step >= 0),
    -- The host that failed the attempt before; the next one is made elsewhere, if there is elsewhere.
    ADD COLUMN avoid_host_id uuid REFERENCES hosts (id);

-- Room that a queued build's sandbox still takes.
CREATE INDEX template_builds_handed_over ON template_builds (host_id)
    WHERE status = 'queued' AND sandbox_id IS NOT NULL;
