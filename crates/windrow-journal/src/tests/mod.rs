//! Tests of the journal as a whole.

mod api;
mod damage;
mod direct_io;
mod faults;
mod faulty_disk;
mod formats;
mod inspect;
mod kill;
mod model;
mod recycling;
mod reserve;
mod rig;
