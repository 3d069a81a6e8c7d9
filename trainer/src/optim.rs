//! AdamW with parameter groups by name, and a state that can be saved by name.
//!
//! Candle's own optimizer hides its moments, so that a run could not be resumed, and takes one
//! learning rate for everything. This one updates each variable where it lies: on the CPU in place and
//! on all threads, with the same result for any number of them, elsewhere by candle's operations.

mod moments;
mod update;

use std::collections::{BTreeMap, BTreeSet};

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use moments::Moments;

/// Which variables train together, and how fast. A variable in no group is frozen.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterGroup {
    /// Beginnings of variable names. The longest that fits any group decides.
    pub prefixes: Vec<String>,
    /// Peak learning rate, above 0.
    pub learning_rate: f64,
    /// Decoupled weight decay per step and unit of learning rate, 0 or more. Never applied to
    /// variables of fewer than two dimensions: biases, norms and scales.
    #[serde(default)]
    pub weight_decay: f64,
    /// The first step of the stage that trains the group; frozen before it.
    #[serde(default)]
    pub from_step: u64,
    /// The step of the stage that freezes the group again; absent: none.
    #[serde(default)]
    pub until_step: Option<u64>,
}

impl ParameterGroup {
    const fn trains_at(&self, step: u64) -> bool {
        let over = match self.until_step {
            Some(until) => step >= until,
            None => false,
        };
        self.from_step <= step && !over
    }
}

/// The constants of AdamW.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamSettings {
    /// Decay of the first moment, 0 to below 1.
    pub beta1: f64,
    /// Decay of the second moment, 0 to below 1.
    pub beta2: f64,
    /// Added to the root of the second moment, above 0.
    pub epsilon: f64,
}

impl Default for AdamSettings {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

#[derive(Debug)]
struct Slot {
    var: Var,
    group: ParameterGroup,
    weight_decay: f64,
    moments: Moments,
    /// How often it was updated.
    updates: u64,
}

/// AdamW (Loshchilov and Hutter, 2019, algorithm 2) over the variables of a stage.
#[derive(Debug)]
pub struct AdamW {
    slots: BTreeMap<String, Slot>,
    settings: AdamSettings,
}

impl AdamW {
    /// An optimizer for those of `vars` that a group names.
    ///
    /// # Errors
    /// If a prefix fits no variable, or nothing would train.
    pub fn new(
        vars: &BTreeMap<String, Var>,
        groups: &[ParameterGroup],
        settings: AdamSettings,
    ) -> Result<Self> {
        check_prefixes(vars, groups)?;
        let mut slots = BTreeMap::new();
        for (name, var) in vars {
            let Some(group) = group_of(name, groups) else { continue };
            let decays = var.rank() >= 2;
            let slot = Slot {
                var: var.clone(),
                group: group.clone(),
                weight_decay: if decays { group.weight_decay } else { 0.0 },
                moments: Moments::zeros(var)?,
                updates: 0,
            };
            slots.insert(name.clone(), slot);
        }
        if slots.is_empty() {
            return Err(Error::setting("groups", "no variable of the model would train"));
        }
        Ok(Self { slots, settings })
    }

    /// The names of the variables that train, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.slots.keys().map(String::as_str)
    }

    /// The variables that train in a step of the stage, by name.
    #[must_use]
    pub fn training_at(&self, step: u64) -> BTreeSet<String> {
        let training = self.slots.iter().filter(|(_, slot)| slot.group.trains_at(step));
        training.map(|(name, _)| name.clone()).collect()
    }

    /// The variables that train, by name.
    #[must_use]
    pub fn vars(&self) -> BTreeMap<String, Var> {
        self.slots.iter().map(|(name, slot)| (name.clone(), slot.var.clone())).collect()
    }

    /// How many numbers train.
    #[must_use]
    pub fn trainable(&self) -> usize {
        self.slots.values().map(|slot| slot.var.elem_count()).sum()
    }

    /// Checks that each variable for which `trains` holds has a finite gradient that is not zero.
    ///
    /// Several fused layers of Candle detach gradients silently; this finds them on the first step.
    ///
    /// # Errors
    /// [`Error::Gradient`] naming the first variable, in order of names, that fails.
    pub fn check_gradients(
        &self,
        grads: &GradStore,
        player: &str,
        trains: impl Fn(&str) -> bool,
    ) -> Result<()> {
        for (name, slot) in self.slots.iter().filter(|(name, _)| trains(name)) {
            let fail = |message: &str| Error::Gradient {
                variable: name.clone(),
                player: player.to_owned(),
                message: message.to_owned(),
            };
            let gradient = grads
                .get(&slot.var)
                .ok_or_else(|| fail("missing: the loss does not depend on it"))?;
            let square = update::square_sum(&[gradient])?;
            if !square.is_finite() {
                return Err(fail("not finite"));
            }
            if square == 0.0 {
                return Err(fail("zero everywhere"));
            }
        }
        Ok(())
    }

    /// Updates the variables for which `trains` holds and which have a gradient; returns the norm of
    /// all their gradients before clipping.
    ///
    /// `share` scales each group's learning rate; gradients are scaled down together so that their
    /// norm is at most `clip_norm`.
    ///
    /// # Errors
    /// If the norm is not finite (nothing is updated then), or a tensor operation fails.
    pub fn step(
        &mut self,
        grads: &GradStore,
        trains: impl Fn(&str) -> bool,
        share: f64,
        clip_norm: Option<f64>,
    ) -> Result<f64> {
        let training = self.slots.iter().filter(|(name, _)| trains(name));
        let gradients: Vec<&Tensor> =
            training.filter_map(|(_, slot)| grads.get(&slot.var)).collect();
        let norm = update::square_sum(&gradients)?.sqrt();
        if !norm.is_finite() {
            return Err(Error::Gradient {
                variable: "all".into(),
                player: "all".into(),
                message: format!("the global norm is {norm}"),
            });
        }
        let clip = clip_norm.map_or(1.0, |limit| (limit / norm.max(1e-12)).min(1.0));
        for (_, slot) in self.slots.iter_mut().filter(|(name, _)| trains(name)) {
            if let Some(gradient) = grads.get(&slot.var) {
                update_slot(slot, gradient, self.settings, (share, clip))?;
            }
        }
        Ok(norm)
    }

    /// The whole state by name, on the CPU: `first.NAME`, `second.NAME` (f32, shape of the variable)
    /// and `updates.NAME` (i64 scalar).
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for (name, slot) in &self.slots {
            let [first, second] = slot.moments.tensors(&slot.var)?;
            state.insert(format!("first.{name}"), first);
            state.insert(format!("second.{name}"), second);
            let updates = i64::try_from(slot.updates).unwrap_or(i64::MAX);
            state.insert(format!("updates.{name}"), Tensor::new(updates, &Device::Cpu)?);
        }
        Ok(state)
    }

    /// Takes back what [`AdamW::state`] gave, whatever device its variables were on.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape than its variable.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        for (name, slot) in &mut self.slots {
            let find = |kind: &str| {
                state
                    .get(&format!("{kind}.{name}"))
                    .ok_or_else(|| Error::checkpoint("optimizer", format!("no `{kind}.{name}`")))
            };
            for kind in ["first", "second"] {
                let shape = find(kind)?.dims();
                if shape != slot.var.dims() {
                    let message = format!("`{kind}.{name}` is {shape:?}");
                    return Err(Error::checkpoint("optimizer", message));
                }
            }
            slot.moments = Moments::from_tensors(&slot.var, find("first")?, find("second")?)?;
            slot.updates = find("updates")?.to_scalar::<i64>()?.unsigned_abs();
        }
        Ok(())
    }
}

fn update_slot(
    slot: &mut Slot,
    gradient: &Tensor,
    settings: AdamSettings,
    (share, clip): (f64, f64),
) -> Result<()> {
    slot.updates += 1;
    let updates = i32::try_from(slot.updates).unwrap_or(i32::MAX);
    let rate = slot.group.learning_rate * share;
    let correction1 = 1.0 - settings.beta1.powi(updates);
    let correction2 = 1.0 - settings.beta2.powi(updates);
    let constants = update::Constants {
        gradient_scale: clip as f32,
        beta1: settings.beta1 as f32,
        beta2: settings.beta2 as f32,
        rest1: (1.0 - settings.beta1) as f32,
        rest2: (1.0 - settings.beta2) as f32,
        step: (rate / correction1) as f32,
        root_correction: correction2.sqrt() as f32,
        epsilon: settings.epsilon as f32,
        keep: (1.0 - rate * slot.weight_decay) as f32,
    };
    slot.moments.update(&slot.var, gradient, constants)
}

/// The group that trains the variable `name`: the one with the longest fitting prefix.
fn group_of<'a>(name: &str, groups: &'a [ParameterGroup]) -> Option<&'a ParameterGroup> {
    groups
        .iter()
        .flat_map(|group| group.prefixes.iter().map(move |prefix| (prefix, group)))
        .filter(|(prefix, _)| name.starts_with(prefix.as_str()))
        .max_by_key(|(prefix, _)| prefix.len())
        .map(|(_, group)| group)
}

fn check_prefixes(vars: &BTreeMap<String, Var>, groups: &[ParameterGroup]) -> Result<()> {
    for prefix in groups.iter().flat_map(|group| &group.prefixes) {
        if !vars.keys().any(|name| name.starts_with(prefix.as_str())) {
            let known: Vec<&str> = vars.keys().map(String::as_str).collect();
            let message = format!("`{prefix}` begins no variable's name; names: {known:?}");
            return Err(Error::setting("groups.prefixes", message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
