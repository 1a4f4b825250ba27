-- Hosts that register by themselves, with a token that is told once, and what builds ask of hosts.

ALTER TABLE hosts
    -- What people call it.
    ADD COLUMN name text CHECK (length(name) BETWEEN 1 AND 128),
    -- Null for a host that stands in the bridges' configuration.
    ADD COLUMN registered_at timestamptz,
    -- sha256 of the public key of its agent: whoever proves to have the key may renew the certificate.
    ADD COLUMN key_hash bytea CHECK (length(key_hash) = 32),
    ADD COLUMN certificate_expires_at timestamptz,
    ADD CONSTRAINT registered_has_a_key CHECK (
        (registered_at IS NULL) = (key_hash IS NULL)
        AND (registered_at IS NULL) = (certificate_expires_at IS NULL)
    );
-- A host that is still to register has no address.
ALTER TABLE hosts DROP CONSTRAINT hosts_address_key;
CREATE UNIQUE INDEX hosts_address ON hosts (address) WHERE address <> '';
CREATE UNIQUE INDEX hosts_key ON hosts (key_hash);

CREATE TABLE host_tokens (
    -- sha256 of the token's text: it is 256 random bits, so no slow hash is needed.
    hash       bytea PRIMARY KEY CHECK (length(hash) = 32),
    -- A host has one token at most: another one takes its place.
    host_id    uuid NOT NULL UNIQUE REFERENCES hosts (id),
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);

-- Labels that the host of a build must have.
ALTER TABLE template_builds
    ADD COLUMN labels jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(labels) = 'object');
