//! How much of it: `CAMPANILE_FIGURES=ci` and `=long` ask for more than the test command does.

pub fn amount(test: usize, ci: usize, long: usize) -> usize {
    match std::env::var("CAMPANILE_FIGURES").as_deref() {
        Ok("ci") => ci,
        Ok("long") => long,
        Ok(other) => panic!("CAMPANILE_FIGURES is ci or long, not {other:?}"),
        Err(_) => test,
    }
}
