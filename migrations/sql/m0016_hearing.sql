-- Since when, and when last, a desk answered a bridge that asked as runners do: one row. A lease that ends while nobody
-- could be heard is no fault of the build.
CREATE TABLE hearing (
    id smallint PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    since timestamptz NOT NULL,
    last timestamptz NOT NULL CHECK (last >= since)
) WITH (fillfactor = 50);
