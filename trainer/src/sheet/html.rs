//! A sheet as a page. It needs nothing beside itself.

use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{ImageFormat, RgbImage};

use super::{Block, Cell};
use crate::error::{Error, Result};
use crate::eval::html::{escape, push, whole};

/// The page, as HTML that is well-formed XML too.
pub(super) fn page(name: &str, blocks: &[Block]) -> Result<String> {
    let mut body = format!("<h1>What {} makes</h1>\n", escape(name));
    for Block { title, note, columns, rows } in blocks {
        push(
            &mut body,
            format_args!(
                "<h2>{}</h2>\n<p class=\"note\">{}</p>\n<table>\n<tr>",
                escape(title),
                escape(note)
            ),
        );
        for column in columns {
            push(&mut body, format_args!("<th>{}</th>", escape(column)));
        }
        body.push_str("</tr>\n");
        for row in rows {
            body.push_str("<tr>");
            for cell in row {
                match cell {
                    Cell::Text(text) => {
                        push(&mut body, format_args!("<td dir=\"auto\">{}</td>", escape(text)));
                    }
                    Cell::Picture(picture) => push(
                        &mut body,
                        format_args!(
                            "<td><img alt=\"\" width=\"64\" height=\"64\" src=\"data:image/png;base64,{}\"/></td>",
                            STANDARD.encode(png(picture)?)
                        ),
                    ),
                }
            }
            body.push_str("</tr>\n");
        }
        body.push_str("</table>\n");
    }
    Ok(whole(&format!("What {name} makes"), &body))
}

fn png(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    let written = picture.write_to(&mut bytes, ImageFormat::Png);
    written.map_err(|error| Error::data("sheet.html", error.to_string()))?;
    Ok(bytes.into_inner())
}
