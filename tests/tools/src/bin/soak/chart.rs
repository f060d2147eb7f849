//! RSS and descriptors of the server over time, as an SVG.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use crate::report::Sample;

pub fn draw(samples: &[Sample], path: &Path) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, (900, 560)).into_drawing_area();
    root.fill(&WHITE)?;
    let [rss, descriptors] = &root.split_evenly((2, 1))[..] else { unreachable!("two panels") };
    let rss_mib = |sample: &Sample| sample.rss_kib as f64 / 1024.0;
    panel(rss, "RSS of the server (MiB)", &BLUE, samples, rss_mib)?;
    let count = |sample: &Sample| sample.descriptors as f64;
    panel(descriptors, "descriptors of the server", &RED, samples, count)?;
    root.present()?;
    Ok(())
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    colour: &RGBColor,
    samples: &[Sample],
    value: impl Fn(&Sample) -> f64,
) -> Result<(), Box<dyn Error>> {
    let minutes = |sample: &Sample| sample.second as f64 / 60.0;
    let end = samples.last().map_or(1.0, minutes).max(1.0 / 60.0);
    let most = samples.iter().map(&value).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..end, 0.0..most * 1.1)?;
    chart.configure_mesh().light_line_style(TRANSPARENT).x_desc("minutes").draw()?;
    let line = samples.iter().map(|sample| (minutes(sample), value(sample)));
    chart.draw_series(LineSeries::new(line, colour))?;
    Ok(())
}
