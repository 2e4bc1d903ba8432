//! The time axis that all lanes of a lesson share. A run of 30 ms and one of 3 s are to be compared on it, so stretches
//! in which nothing happens in any lane are drawn shorter than they are, and are marked as breaks.

/// Where nothing happens for this long (microseconds), the axis is broken.
const BREAK: u64 = 150_000;
/// What is left free at both ends, percent of the width.
const MARGIN: f64 = 1.5;
/// Two labels are at least this far apart, percent.
const LABEL_ROOM: f64 = 11.0;

/// Maps microseconds to percent of the picture's width.
#[derive(Debug)]
pub struct Axis {
    /// Times and their places, both growing.
    knots: Vec<(u64, f64)>,
    /// The stretches that are drawn shorter.
    pub breaks: Vec<(u64, u64)>,
}

/// A label below the axis.
#[derive(Debug, PartialEq)]
pub struct Tick {
    pub place: f64,
    pub label: String,
}

impl Axis {
    /// From the times of everything that happened, in any lane; `end` is where the longest lane ends.
    pub fn new(times: impl IntoIterator<Item = u64>, end: u64) -> Axis {
        let mut times: Vec<u64> = times.into_iter().filter(|time| *time < end).chain([0, end.max(1)]).collect();
        times.sort_unstable();
        times.dedup();
        let gaps: Vec<(u64, u64)> = times.windows(2).map(|pair| (pair[0], pair[1])).collect();
        let busy: u64 = gaps.iter().map(|(from, to)| to - from).filter(|length| *length < BREAK).sum();
        let width = |(from, to): (u64, u64)| -> f64 {
            let length = (to - from) as f64;
            match to - from < BREAK {
                true => length,
                // A longer break is still wider than a shorter one.
                false => length.min(busy.max(20_000) as f64 * 0.12 * (1.0 + (length / BREAK as f64).log2())),
            }
        };
        let total: f64 = gaps.iter().copied().map(width).sum();
        let scale = (100.0 - 2.0 * MARGIN) / total;
        let mut knots = vec![(0, MARGIN)];
        let mut place = MARGIN;
        for gap in &gaps {
            place += width(*gap) * scale;
            knots.push((gap.1, place));
        }
        let breaks = gaps.into_iter().filter(|gap| width(*gap) < (gap.1 - gap.0) as f64).collect();
        Axis { knots, breaks }
    }

    /// Percent of the width, rounded so that pages stay small.
    pub fn place(&self, time: u64) -> f64 {
        let after = self.knots.partition_point(|(knot, _)| *knot <= time);
        let place = match (self.knots.get(after.wrapping_sub(1)), self.knots.get(after)) {
            (Some((from, left)), Some((to, right))) => {
                left + (right - left) * (time - from) as f64 / (to - from) as f64
            }
            (Some((_, place)), None) | (None, Some((_, place))) => *place,
            (None, None) => MARGIN,
        };
        (place * 100.0).round() / 100.0
    }

    /// Labels that do not lie over each other: the ends of breaks first, then round times.
    pub fn ticks(&self) -> Vec<Tick> {
        let end = self.knots.last().map_or(1, |(time, _)| *time);
        let is_in_break = |time: &u64| self.breaks.iter().any(|(from, to)| from < time && time < to);
        let busy = end - self.breaks.iter().map(|(from, to)| to - from).sum::<u64>();
        let steps = [1u64, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000].map(|step| step * 1000);
        let step = steps.into_iter().find(|step| busy / step <= 8).unwrap_or(20_000_000);
        let round = (1..=end / step).map(|count| count * step).filter(|time| !is_in_break(time)).take(1000);
        let mut ticks = vec![Tick { place: self.place(0), label: "0".into() }];
        for time in self.breaks.iter().rev().map(|(_, to)| *to).chain(round) {
            let place = self.place(time);
            if ticks.iter().all(|tick| (tick.place - place).abs() >= LABEL_ROOM) && place < 97.0 {
                ticks.push(Tick { place, label: duration(time) });
            }
        }
        ticks.sort_by(|one, other| one.place.total_cmp(&other.place));
        ticks
    }
}

/// `12 ms`, `3.03 s`
pub fn duration(microseconds: u64) -> String {
    match microseconds {
        0 => "0".into(),
        1..100 => "under 0.1 ms".into(),
        100..10_000 => format!("{:.1} ms", microseconds as f64 / 1e3),
        10_000..1_000_000 => format!("{:.0} ms", microseconds as f64 / 1e3),
        _ => format!("{:.2} s", microseconds as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_runs_on_one_axis() {
        let axis = Axis::new([5_000, 20_000, 30_000, 36_000, 3_020_000], 3_030_000);
        assert_eq!(axis.breaks, [(36_000, 3_020_000)]);
        // What is short can be seen beside what is long.
        assert!(axis.place(36_000) > 35.0, "{axis:?}");
        assert!(axis.place(3_030_000) <= 100.0 - MARGIN + 0.01);
        let places: Vec<f64> = [0, 4_000, 36_000, 2_000_000, 3_020_000, 9_000_000].map(|time| axis.place(time)).into();
        assert!(places.is_sorted(), "{places:?}");
        let ticks = axis.ticks();
        assert!(ticks.iter().any(|tick| tick.label == "3.02 s"), "{ticks:?}");
        assert!(ticks.windows(2).all(|pair| pair[1].place - pair[0].place >= LABEL_ROOM), "{ticks:?}");
    }

    #[test]
    fn nothing_happened() {
        let axis = Axis::new([], 0);
        assert_eq!((axis.place(0), axis.ticks().len()), (MARGIN, 1));
    }
}
