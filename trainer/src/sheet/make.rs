//! The blocks of a sheet.

use candle_core::Tensor;

use super::{Block, Cell, SheetArgs};
use crate::error::{Error, Result};
use crate::eval::items::{self, Item, Side, What};
use crate::generate::{Coded, Generator, visible};
use crate::objective::decoders::Writing;
use crate::objective::noise;
use crate::shards::Split;

/// Texts that a beam keeps.
const BEAM: usize = 4;

/// What draws of words are divided by.
const TEMPERATURE: f64 = 0.7;

/// One of the two sides of the chosen concepts.
struct Half {
    side: Side,
    items: Vec<Item>,
    codes: Coded,
}

/// All blocks: of each side what it makes.
pub(super) fn blocks(generator: &Generator<'_>, args: &SheetArgs) -> Result<Vec<Block>> {
    let corpus = &generator.training().corpus;
    let split =
        [Split::Test, Split::Dev, Split::Train].into_iter().find(|split| corpus.has(*split));
    let of = |concept: usize| Some(corpus.concepts[concept].split) == split;
    let pairs = items::aligned(corpus, of, args.rows, args.seed);
    if pairs[0].len() < 2 {
        return Err(Error::data(&args.run, "fewer than two concepts have both sides"));
    }
    let [images, others] = pairs;
    let [first, second] = Side::both(corpus);
    let half = |side, items: Vec<Item>| -> Result<Half> {
        Ok(Half { side, codes: generator.code_items(side, &items)?, items })
    };
    let halves = [half(first, images)?, half(second, others)?];
    let mut blocks = Vec::new();
    for (own, other) in [(&halves[0], &halves[1]), (&halves[1], &halves[0])] {
        blocks.push(drawn(generator, own, other, args)?);
        blocks.push(again(generator, own, other)?);
        blocks.push(swapped(generator, own, other)?);
    }
    Ok(blocks)
}

/// From the other side's shared code and draws of the exclusive one.
fn drawn(generator: &Generator<'_>, own: &Half, other: &Half, args: &SheetArgs) -> Result<Block> {
    let rows = own.items.len();
    let mut columns =
        vec![format!("from this {}", other.side.as_str()), format!("real {}", own.side.as_str())];
    let mut made = vec![real(generator, other)?, real(generator, own)?];
    let width = own.codes.exclusive.dim(1)?;
    for draw in 0..args.draws {
        // One draw for the whole column, so that it can be seen what the draw does.
        let seed = args.seed.wrapping_add(draw as u64);
        let exclusive =
            noise::normal(seed, noise::Side::Joint, (1, width), &candle_core::Device::Cpu)?;
        let exclusive = exclusive.to_device(own.codes.exclusive.device())?.repeat((rows, 1))?;
        let codes = Coded { shared: other.codes.shared.clone(), exclusive };
        made.push(cells(generator, own.side, &codes, Writing::Greedy)?);
        columns.push(format!("draw {}", draw + 1));
    }
    let title = format!("{} from {}", plural(own.side), plural(other.side));
    let note = "The shared code is the other side's; each column has one draw of the exclusive code. \
                What a row shows should stay, how it shows it should change along the row.";
    Ok(Block { title, note, columns, rows: transposed(made) })
}

/// From the other side's shared code and the own exclusive one; texts also by draws and by a beam.
fn again(generator: &Generator<'_>, own: &Half, other: &Half) -> Result<Block> {
    let codes =
        Coded { shared: other.codes.shared.clone(), exclusive: own.codes.exclusive.clone() };
    let mut columns = vec!["real".to_owned(), "made again".to_owned()];
    let mut made =
        vec![real(generator, own)?, cells(generator, own.side, &codes, Writing::Greedy)?];
    if own.side == Side::Text {
        let sampled = |seed| Writing::Sampled { temperature: TEMPERATURE, seed };
        for (name, writing) in [
            ("sampled", sampled(1)),
            ("sampled again", sampled(2)),
            ("by a beam", Writing::Beam { width: BEAM }),
        ] {
            made.push(cells(generator, own.side, &codes, writing)?);
            columns.push(name.to_owned());
        }
    }
    let title = format!("{} made again", plural(own.side));
    let note = "From the other side's shared code and the item's own exclusive one.";
    Ok(Block { title, note, columns, rows: transposed(made) })
}

/// Every shared code with every exclusive one.
fn swapped(generator: &Generator<'_>, own: &Half, other: &Half) -> Result<Block> {
    let count = own.items.len();
    let mut columns = vec!["shared code of".to_owned()];
    let mut made = vec![real(generator, other)?];
    let mut labels = vec![Cell::Text("exclusive code of".to_owned())];
    for (giver, label) in (0..count).zip(real(generator, own)?) {
        let exclusive = own.codes.select(&vec![giver; count])?.exclusive;
        let codes = Coded { shared: other.codes.shared.clone(), exclusive };
        made.push(cells(generator, own.side, &codes, Writing::Greedy)?);
        columns.push(format!("{}", giver + 1));
        labels.push(label);
    }
    let mut rows = transposed(made);
    rows.insert(0, labels);
    let title = format!("{} with codes swapped", plural(own.side));
    let note = "A row has one shared code, a column one exclusive code.";
    Ok(Block { title, note, columns, rows })
}

const fn plural(side: Side) -> &'static str {
    match side {
        Side::Image => "Pictures",
        Side::Text => "Texts",
        Side::Counterpart => "Counterparts",
    }
}

/// The items themselves.
fn real(generator: &Generator<'_>, half: &Half) -> Result<Vec<Cell>> {
    let corpus = &generator.training().corpus;
    let cell = |item: &Item| {
        Ok(match &item.what {
            What::Picture(at) => Cell::Picture(corpus.decoded(*at)?.plain.clone()),
            What::Text { text, .. } => Cell::Text(text.clone()),
        })
    };
    half.items.iter().map(cell).collect()
}

/// What a side makes of codes.
fn cells(
    generator: &Generator<'_>,
    side: Side,
    codes: &Coded,
    writing: Writing,
) -> Result<Vec<Cell>> {
    if side == Side::Text {
        let texts = generator.decoders()?.texts(&codes.shared, &codes.exclusive, writing)?;
        return Ok(texts.unwrap_or_default().into_iter().map(Cell::Text).collect());
    }
    let pixels: Tensor = generator.pictures(codes, side == Side::Counterpart)?;
    let pictures = visible(&pixels, &generator.training().preprocessing.image)?;
    Ok(pictures.into_iter().map(Cell::Picture).collect())
}

/// Columns of cells to rows.
fn transposed(columns: Vec<Vec<Cell>>) -> Vec<Vec<Cell>> {
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for column in columns {
        rows.resize_with(rows.len().max(column.len()), Vec::new);
        for (row, cell) in rows.iter_mut().zip(column) {
            row.push(cell);
        }
    }
    rows
}
