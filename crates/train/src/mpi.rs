//! Ranks over MPI: `mpirun -n 4` starts four.

use mpi::Threading;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives};

use crate::{Collective, Error};

/// The processes that `mpirun` started; one that was started without it is alone.
pub struct Mpi {
    world: SimpleCommunicator,
    /// MPI ends with it, on the thread that began it.
    _universe: Universe,
}

impl Mpi {
    /// Begins MPI, which a process can do once. From now on this thread is the one that may speak.
    ///
    /// # Errors
    /// When it was begun before.
    pub fn connect() -> Result<Self, Error> {
        let (universe, _) = mpi::initialize_with_threading(Threading::Funneled).ok_or(Error::Ranks)?;
        Ok(Self { world: universe.world(), _universe: universe })
    }
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.world.rank().unsigned_abs() as usize
    }

    fn ranks(&self) -> usize {
        self.world.size().unsigned_abs() as usize
    }

    fn all_gather(&mut self, part: &[f32], whole: &mut [f32]) {
        self.world.all_gather_into(part, whole);
    }

    fn all_gather_f64(&mut self, part: &[f64], whole: &mut [f64]) {
        self.world.all_gather_into(part, whole);
    }

    fn all_to_all(&mut self, blocks: &[f32], from: &mut [f32]) {
        self.world.all_to_all_into(blocks, from);
    }
}

impl std::fmt::Debug for Mpi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} of {}", self.rank(), self.ranks())
    }
}
