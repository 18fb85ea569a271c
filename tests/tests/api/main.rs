//! The face of the service, said once and tested through both protocols: what works, what is refused, what is served beside.

mod cases;
mod refusals;
mod surroundings;
