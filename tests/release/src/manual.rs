//! One manual page for each command, and the completions of four shells.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::cli::args::Cli;

/// Writes `man/*.1` and `completions/*`.
pub fn write(folder: &Path) -> io::Result<()> {
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    let mut command = Cli::definition().disable_help_subcommand(true);
    command.build();
    pages(&command, "campanile", &man)?;
    for shell in Shell::value_variants() {
        if *shell != Shell::Elvish {
            clap_complete::generate_to(*shell, &mut Cli::definition(), "campanile", &completions)?;
        }
    }
    Ok(())
}

fn pages(command: &Command, name: &str, folder: &Path) -> io::Result<()> {
    // The options of --help stand in every page; the text after them is a section of its own.
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let page = command.clone().name(name.to_owned()).display_name(name).after_help("");
    let page = page.bin_name(name.replace('-', " ")).version(env!("CARGO_PKG_VERSION"));
    let man = Man::new(page.clone()).title(name.to_uppercase()).source("campanile").date(DATE);
    let mut file = Vec::new();
    man.render_title(&mut file)?;
    man.render_name_section(&mut file)?;
    man.render_synopsis_section(&mut file)?;
    man.render_description_section(&mut file)?;
    man.render_options_section(&mut file)?;
    let mut rest = Roff::new();
    let below: Vec<_> = command.get_subcommands().filter(|below| !below.is_hide_set()).collect();
    if !below.is_empty() {
        rest.control("SH", ["COMMANDS"]);
    }
    for below in &below {
        let about = below.get_about().map(ToString::to_string).unwrap_or_default();
        rest.control("TP", []);
        rest.text([roman(format!("{name}-{}(1)", below.get_name()))]);
        rest.text([roman(about)]);
    }
    if !text.is_empty() {
        rest.control("SH", ["NOTES"]);
        // As it is printed: columns stay columns.
        rest.control("nf", []);
        for line in text.lines() {
            rest.text([roman(line)]);
        }
        rest.control("fi", []);
    }
    rest.to_writer(&mut file)?;
    // clap_mangen leaves blanks at the end of some lines.
    let text = String::from_utf8_lossy(&file);
    let lines: String = text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    fs::write(folder.join(format!("{name}.1")), lines)?;
    for below in below {
        pages(below, &format!("{name}-{}", below.get_name()), folder)?;
    }
    Ok(())
}

/// The date of the pages: the release workflow sets it to the date of the tag.
const DATE: &str = match option_env!("RELEASE_DATE") {
    Some(date) => date,
    None => "2026-01-01",
};
