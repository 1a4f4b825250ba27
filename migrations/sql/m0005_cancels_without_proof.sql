-- Cancelled builds of whose sandbox nobody has the host's word yet that it is gone: the sweep asks each host.

CREATE INDEX template_builds_cancel_unproven ON template_builds (completed_at)
    WHERE status = 'cancelled' AND sandbox_destroyed_at IS NULL AND host_id IS NOT NULL;
