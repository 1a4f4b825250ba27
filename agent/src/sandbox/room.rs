//! What this host can still take: slots, processors, memory. Pure arithmetic.
//!
//! A sandbox that sleeps keeps its slot, which is its address, and gives the rest back.

use std::collections::BTreeSet;

use ovenbird_host::Slot;

/// Size of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mb: u32,
}

/// What may be given out in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sandboxes at once.
    pub sandboxes: u16,
    /// Processors and memory of all of them together.
    pub total: Shape,
}

/// There is not enough left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this host has no room: {what} {used} of {limit} are in use, {free} are free and {wanted} more are wanted; {advice}",
    free = limit.saturating_sub(*used)
)]
pub struct NoRoom {
    what: &'static str,
    advice: &'static str,
    used: u32,
    limit: u32,
    wanted: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Room {
    limits: Limits,
    taken: BTreeSet<Slot>,
    asleep: BTreeSet<Slot>,
    used: Shape,
}

impl Room {
    /// An empty host.
    pub(super) fn new(limits: Limits) -> Self {
        let used = Shape { vcpus: 0, memory_mb: 0 };
        Self { limits, taken: BTreeSet::new(), asleep: BTreeSet::new(), used }
    }

    /// Takes a slot and room for a sandbox.
    ///
    /// # Errors
    /// [`NoRoom`] names what is short; nothing is taken then.
    pub(super) fn take(&mut self, shape: Shape) -> Result<Slot, NoRoom> {
        fits(SANDBOXES, self.sandboxes(), u32::from(self.limits.sandboxes), 1)?;
        self.add(shape)?;
        let mut slots = (0..self.limits.sandboxes).map(Slot);
        let free = slots.find(|slot| !self.taken.contains(slot));
        let slot = free.expect("fewer sandboxes than slots are in use");
        self.taken.insert(slot);
        Ok(slot)
    }

    /// Takes the slot and the room of a sandbox that is there already, whatever the limits are by now. False when the
    /// slot is taken.
    pub(super) fn take_again(&mut self, slot: Slot, shape: Shape, is_asleep: bool) -> bool {
        if !self.taken.insert(slot) {
            return false;
        }
        if is_asleep {
            self.asleep.insert(slot);
        } else {
            self.used.vcpus = self.used.vcpus.saturating_add(shape.vcpus);
            self.used.memory_mb = self.used.memory_mb.saturating_add(shape.memory_mb);
        }
        true
    }

    /// Gives back what [`Room::take`] took.
    pub(super) fn give_back(&mut self, slot: Slot, shape: Shape) {
        if self.taken.remove(&slot) && !self.asleep.remove(&slot) {
            self.subtract(shape);
        }
    }

    /// Gives back all but the slot.
    pub(super) fn sleep(&mut self, slot: Slot, shape: Shape) {
        if self.asleep.insert(slot) {
            self.subtract(shape);
        }
    }

    /// Takes again what [`Room::sleep`] gave back.
    ///
    /// # Errors
    /// [`NoRoom`] names what is short; nothing is taken then.
    pub(super) fn wake(&mut self, slot: Slot, shape: Shape) -> Result<(), NoRoom> {
        if self.asleep.contains(&slot) {
            self.add(shape)?;
            self.asleep.remove(&slot);
        }
        Ok(())
    }

    fn add(&mut self, shape: Shape) -> Result<(), NoRoom> {
        let (used, total) = (self.used, self.limits.total);
        fits(VCPUS, used.vcpus, total.vcpus, shape.vcpus)?;
        fits(MEMORY, used.memory_mb, total.memory_mb, shape.memory_mb)?;
        self.used.vcpus += shape.vcpus;
        self.used.memory_mb += shape.memory_mb;
        Ok(())
    }

    fn subtract(&mut self, shape: Shape) {
        self.used.vcpus -= shape.vcpus;
        self.used.memory_mb -= shape.memory_mb;
    }

    /// What is in use.
    pub(super) fn used(&self) -> Shape {
        self.used
    }

    fn sandboxes(&self) -> u32 {
        u32::try_from(self.taken.len()).unwrap_or(u32::MAX)
    }
}

/// What can be short, and what helps.
type Resource = (&'static str, &'static str);

const SANDBOXES: Resource =
    ("sandboxes", "destroy some, also paused ones, or raise capacity.sandboxes of this host");
const VCPUS: Resource = (
    "vcpus",
    "ask for fewer vcpus, pause or destroy sandboxes, or raise capacity.cpu_overcommit of this host",
);
const MEMORY: Resource = (
    "memory in MiB",
    "ask for a smaller memory_mb, pause or destroy sandboxes, or raise capacity.memory_overcommit of this host",
);

fn fits((what, advice): Resource, used: u32, limit: u32, wanted: u32) -> Result<(), NoRoom> {
    if used.checked_add(wanted).is_none_or(|sum| sum > limit) {
        return Err(NoRoom { what, advice, used, limit, wanted });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Shape = Shape { vcpus: 1, memory_mb: 100 };

    fn room() -> Room {
        Room::new(Limits { sandboxes: 3, total: Shape { vcpus: 4, memory_mb: 250 } })
    }

    #[test]
    fn each_bound_refuses_on_its_own_and_takes_nothing() {
        let mut memory = room();
        memory.take(SMALL).unwrap();
        memory.take(SMALL).unwrap();
        let error = memory.take(SMALL).unwrap_err().to_string();
        assert_eq!(
            error,
            "this host has no room: memory in MiB 200 of 250 are in use, 50 are free and 100 more are wanted; ask for \
             a smaller memory_mb, pause or destroy sandboxes, or raise capacity.memory_overcommit of this host"
        );
        let mut vcpus = room();
        vcpus.take(Shape { vcpus: 4, memory_mb: 1 }).unwrap();
        assert!(vcpus.take(Shape { vcpus: 1, memory_mb: 1 }).is_err());
        let mut slots = room();
        for _ in 0..3 {
            slots.take(Shape { vcpus: 1, memory_mb: 1 }).unwrap();
        }
        let error = slots.take(Shape { vcpus: 1, memory_mb: 1 }).unwrap_err();
        assert!(error.to_string().contains("sandboxes 3 of 3"), "{error}");
        assert_eq!(memory.used(), Shape { vcpus: 2, memory_mb: 200 });
    }

    #[test]
    fn given_back_twice_counts_once() {
        let mut room = room();
        let slot = room.take(SMALL).unwrap();
        room.take(SMALL).unwrap();
        room.give_back(slot, SMALL);
        room.give_back(slot, SMALL);
        assert_eq!(room.used(), SMALL);
        assert_eq!(room.take(SMALL).unwrap(), slot);
    }

    #[test]
    fn sleeper_keeps_its_slot_only_and_wakes_where_there_is_room() {
        let mut room = room();
        let (first, second) = (room.take(SMALL).unwrap(), room.take(SMALL).unwrap());
        room.sleep(first, SMALL);
        room.sleep(first, SMALL);
        assert_eq!(room.used(), SMALL);
        let third = room.take(SMALL).unwrap();
        assert!(![first, second].contains(&third));
        assert!(room.take(Shape { vcpus: 0, memory_mb: 0 }).is_err(), "all slots are taken");
        assert!(room.wake(first, SMALL).unwrap_err().to_string().contains("memory"));
        room.give_back(third, SMALL);
        room.wake(first, SMALL).unwrap();
        room.wake(first, SMALL).unwrap();
        assert_eq!(room.used(), Shape { vcpus: 2, memory_mb: 200 });
        room.sleep(second, SMALL);
        room.give_back(second, SMALL);
        room.give_back(first, SMALL);
        assert_eq!(room.used(), Shape { vcpus: 0, memory_mb: 0 });
        assert_eq!(room.take(SMALL).unwrap(), first);
    }

    #[test]
    fn sandboxes_of_an_earlier_agent_keep_their_slots_also_past_the_limits() {
        let mut room = room();
        assert!(room.take_again(Slot(1), SMALL, false));
        assert!(!room.take_again(Slot(1), SMALL, false));
        assert!(room.take_again(Slot(700), Shape { vcpus: 50, memory_mb: 5000 }, false));
        assert!(room.take_again(Slot(0), SMALL, true));
        assert!(room.take(SMALL).is_err(), "there are more than there should be");
        assert!(room.wake(Slot(0), SMALL).is_err());
        room.give_back(Slot(700), Shape { vcpus: 50, memory_mb: 5000 });
        assert_eq!(room.used(), SMALL);
        assert_eq!(room.take(SMALL).unwrap(), Slot(2));
        room.give_back(Slot(0), SMALL);
        assert_eq!(room.used(), Shape { vcpus: 2, memory_mb: 200 });
    }

    #[test]
    fn absurd_wishes_do_not_overflow() {
        let mut room = room();
        room.take(SMALL).unwrap();
        assert!(room.take(Shape { vcpus: u32::MAX, memory_mb: u32::MAX }).is_err());
    }
}
