//! Benches of Ekiden by stage; all of them are in `benches/`. Figures of one run compare with each other, and with nothing else.
