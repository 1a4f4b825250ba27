-- What follows from the text of the key that a browser signed in with, sealed under the session's own text: requests with
-- an Idempotency-Key are the same after signing in again. NULL for sessions that were opened before.
ALTER TABLE sessions ADD COLUMN repeats bytea;

-- Who is about to make the first template of a name.
CREATE INDEX template_builds_names ON template_builds (name) WHERE status IN ('queued', 'running', 'cancelling');
