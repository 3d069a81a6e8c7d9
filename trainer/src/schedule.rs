//! How the learning rate moves over a stage.

/// Linear warm-up, then a half cosine down to a share of the peak.
///
/// The cosine is that of Loshchilov and Hutter, "SGDR" (2017), eq. 5, without restarts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Steps of the stage.
    pub steps: u64,
    /// Steps over which the rate rises linearly to its peak. Less than `steps`.
    pub warmup_steps: u64,
    /// The rate of the last step as a share of the peak, 0 to 1.
    pub final_share: f64,
}

impl Schedule {
    /// The share of the peak rate that `step` (from 0) uses: in (0, 1] while `final_share` > 0.
    ///
    /// The first step already moves (1 / `warmup_steps`), and the last one has `final_share`.
    #[must_use]
    pub fn share(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return (step + 1) as f64 / self.warmup_steps as f64;
        }
        let span = self.steps.saturating_sub(self.warmup_steps).saturating_sub(1).max(1);
        let progress = ((step - self.warmup_steps) as f64 / span as f64).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        self.final_share + (1.0 - self.final_share) * cosine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule { steps: 101, warmup_steps: 10, final_share: 0.1 };

    #[test]
    fn rises_linearly_then_falls_along_a_cosine_to_the_final_share() {
        let near = |step: u64, expected: f64| {
            let share = SCHEDULE.share(step);
            assert!((share - expected).abs() < 1e-12, "step {step}: {share} is not {expected}");
        };
        near(0, 0.1);
        near(4, 0.5);
        near(9, 1.0);
        near(10, 1.0);
        near(55, 0.55);
        near(100, 0.1);
        near(500, 0.1);
    }

    #[test]
    fn a_stage_of_one_step_trains_at_the_peak() {
        let one = Schedule { steps: 1, warmup_steps: 0, final_share: 0.0 };
        assert!((one.share(0) - 1.0).abs() < f64::EPSILON);
    }
}
