-- Browsers that are signed in. What the browser holds is nowhere here, only its hash; what it may do is its key's
-- business, so that it ends when the key does.

CREATE TABLE sessions (
    -- sha256 of the cookie's text: it is 256 random bits, so no slow hash is needed.
    hash       bytea PRIMARY KEY CHECK (length(hash) = 32),
    key_id     uuid NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX sessions_key ON sessions (key_id, created_at DESC);
CREATE INDEX sessions_expiry ON sessions (expires_at);
