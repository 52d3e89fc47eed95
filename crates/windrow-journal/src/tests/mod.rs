//! Tests of the journal as a whole.

mod api;
mod damage;
mod direct;
mod faults;
mod faulty;
mod formats;
mod kill;
mod model;
mod reuse;
mod rig;
