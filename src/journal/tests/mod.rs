//! Tests of the journal as a whole.

mod api;
mod damage;
mod faults;
mod faulty;
mod model;
mod rig;
