-- Raised by whoever takes room on the host: a claim of one statement sees by it whether the room that it counted is
-- still what it was.
ALTER TABLE hosts ADD COLUMN bookings bigint NOT NULL DEFAULT 0;
