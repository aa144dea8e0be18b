//! One binary of tests: goldens of tiny checkpoints, broken files, and (ignored by default) real models.

mod broken;
mod goldens;
mod real;
mod runner;
