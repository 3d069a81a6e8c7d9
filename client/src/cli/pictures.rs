//! Pictures on terminals that can show them.

use std::env::var_os;
use std::io::{IsTerminal as _, stdin};

use anyhow::Result;
use diptych::{Client, v1};

use super::args::Pictures;
use super::out::{Out, say};
use super::value::source_image;

/// Width of a picture in columns.
const WIDTH: u32 = 24;
/// Largest file that is decoded for a look; a terminal shows a few hundred pixels of it.
const MOST_BYTES: usize = 32 << 20;
/// Most pixels on a side that are decoded for a look.
const MOST_SIDE: u32 = 12_000;

/// How pictures can be shown, if they are to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    graphics: bool,
}

impl Screen {
    /// `None` when no pictures are to be shown.
    pub(crate) fn find(asked: Pictures, out: Out) -> Option<Self> {
        if out.json || asked == Pictures::Never {
            return None;
        }
        let graphics = out.terminal && stdin().is_terminal() && has_graphics();
        (graphics || asked == Pictures::Always).then_some(Self { graphics })
    }

    /// Shows the picture of every hit that has one, under its number.
    pub(crate) async fn show(
        self,
        client: &Client,
        collection: &str,
        hits: &[v1::Hit],
        out: Out,
    ) -> Result<()> {
        for (place, hit) in hits.iter().enumerate() {
            if hit.modality != i32::from(v1::Modality::Image) {
                continue;
            }
            let item = client.get_item(diptych::get_item(collection, &hit.id)).await?.item;
            let source = item.and_then(|item| item.source);
            let Some(bytes) = source_image(source.as_ref()) else { continue };
            out.line(&format!("{}  {}", place + 1, hit.id))?;
            if let Err(error) = self.draw(bytes) {
                say(&format!("diptych: the picture of {} cannot be shown: {error:#}", hit.id));
            }
        }
        Ok(())
    }

    fn draw(self, bytes: &[u8]) -> Result<()> {
        anyhow::ensure!(bytes.len() <= MOST_BYTES, "{} bytes are too many", bytes.len());
        let mut reader =
            image::ImageReader::new(std::io::Cursor::new(bytes)).with_guessed_format()?;
        let mut limits = image::Limits::default();
        limits.max_image_width = Some(MOST_SIDE);
        limits.max_image_height = Some(MOST_SIDE);
        reader.limits(limits);
        let picture = reader.decode()?;
        let config = viuer::Config {
            absolute_offset: false,
            width: Some(WIDTH),
            use_kitty: self.graphics,
            use_iterm: self.graphics,
            ..Default::default()
        };
        viuer::print(&picture, &config)?;
        Ok(())
    }
}

/// Whether the terminal is one that draws pictures. It is judged by name: asking it by escape codes would wait for ever where
/// nothing answers.
fn has_graphics() -> bool {
    let names = ["TERM", "TERM_PROGRAM", "LC_TERMINAL"].map(|name| {
        var_os(name).map(|value| value.to_string_lossy().to_lowercase()).unwrap_or_default()
    });
    // Multiplexers do not pass pictures on.
    let multiplexed = ["screen", "tmux"].iter().any(|kind| names[0].starts_with(kind));
    !multiplexed && names.iter().any(|name| draws(name))
}

fn draws(name: &str) -> bool {
    ["kitty", "ghostty", "wezterm", "iterm", "konsole"].iter().any(|known| name.contains(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_known_by_name() {
        assert!(draws("xterm-kitty") && draws("iterm.app"));
        assert!(!draws("xterm-256color") && !draws("dumb") && !draws(""));
    }

    #[test]
    fn programs_get_no_pictures() {
        let out = Out { json: true, terminal: true };
        assert!(Screen::find(Pictures::Always, out).is_none());
        let pipe = Out { json: false, terminal: false };
        assert!(Screen::find(Pictures::Auto, pipe).is_none());
    }
}
