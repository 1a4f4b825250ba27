-- What came of each mutation, and the first answers of requests that may be sent again.

ALTER TABLE audit_log
    -- HTTP status of the answer. Null while the request is carried out; it stays null when the api died meanwhile,
    -- for then nobody knows.
    ADD COLUMN status integer CHECK (status BETWEEN 100 AND 599);
CREATE INDEX audit_log_actor ON audit_log (actor, at DESC, id DESC);
CREATE INDEX audit_log_action ON audit_log (action, at DESC, id DESC);

CREATE TABLE idempotency_keys (
    api_key_id      uuid NOT NULL REFERENCES api_keys (id),
    operation       text NOT NULL,
    idempotency_key text NOT NULL CHECK (length(idempotency_key) BETWEEN 1 AND 255),
    -- Path and body of the request, under a hash that is keyed by the API key's text.
    fingerprint     bytea NOT NULL CHECK (length(fingerprint) = 32),
    -- The id of what the request makes. A request that is carried out again after a crash makes the same thing.
    resource_id     uuid NOT NULL,
    -- Who carries it out, and until when the others leave it alone.
    holder          uuid NOT NULL,
    held_until      timestamptz NOT NULL,
    answered_at     timestamptz,
    -- Sealed by a key that follows from the API key's text, which is nowhere here. Null beside `answered_at` for an
    -- answer that was too large to keep, or a stream.
    answer          bytea CHECK (answer IS NULL OR answered_at IS NOT NULL),
    expires_at      timestamptz NOT NULL,
    PRIMARY KEY (api_key_id, operation, idempotency_key)
);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

-- A build's own id makes its insert repeatable now, so `template_builds.idempotency_key` is not written any more. The
-- column and its index stay for processes of the version before, which run beside this one during an upgrade.
