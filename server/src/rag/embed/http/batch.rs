//! How many inputs go into one request. Pure.

use crate::rag::embed::{Input, Medium};

/// What a service takes in one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchLimits {
    /// Inputs.
    pub(super) inputs: usize,
    /// Bytes of all of them. One input may have more: it goes alone.
    pub(super) bytes: usize,
    /// Whether inputs of different media may go together.
    pub(super) mixed: bool,
    /// Whether more than one image or sound may go together.
    pub(super) media_together: bool,
}

/// The inputs of each request, by their positions, in order: every input once.
pub(super) fn plan(inputs: &[Input<'_>], limits: &BatchLimits) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut bytes = 0;
    let mut medium = Medium::Text;
    for (i, input) in inputs.iter().enumerate() {
        let size = reference(input).len();
        let goes_along = batches.last().is_some_and(|batch| {
            batch.len() < limits.inputs
                && bytes + size <= limits.bytes
                && (limits.mixed || medium == input.medium())
                && (limits.media_together || (medium == Medium::Text && input.medium() == Medium::Text))
        });
        match batches.last_mut() {
            Some(batch) if goes_along => batch.push(i),
            _ => {
                batches.push(vec![i]);
                bytes = 0;
            }
        }
        bytes += size;
        medium = input.medium();
    }
    batches
}

/// What stands for an input: its text, or where it is.
pub(super) fn reference<'a>(input: &Input<'a>) -> &'a str {
    match *input {
        Input::Text(what) | Input::Image(what) | Input::Audio(what) => what,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn input(medium: u8, text: &str) -> Input<'_> {
        match medium {
            0 => Input::Image(text),
            1 => Input::Audio(text),
            _ => Input::Text(text),
        }
    }

    proptest! {
        #[test]
        fn every_input_goes_once_in_order_and_no_request_is_too_large(
            given in prop::collection::vec((0_u8..5, 0_usize..40), 0..60),
            most in 1_usize..9,
            bytes in 1_usize..100,
            mixed: bool,
            media_together: bool,
        ) {
            let texts: Vec<(u8, String)> = given.into_iter().map(|(medium, size)| (medium, "x".repeat(size))).collect();
            let inputs: Vec<Input<'_>> = texts.iter().map(|(medium, text)| input(*medium, text)).collect();
            let limits = BatchLimits { inputs: most, bytes, mixed, media_together };
            let batches = plan(&inputs, &limits);
            let all: Vec<usize> = batches.iter().flatten().copied().collect();
            prop_assert_eq!(all, (0..inputs.len()).collect::<Vec<_>>());
            for batch in &batches {
                let size: usize = batch.iter().map(|&i| reference(&inputs[i]).len()).sum();
                prop_assert!(!batch.is_empty() && batch.len() <= most);
                prop_assert!(size <= bytes || batch.len() == 1);
                let first = inputs[batch[0]].medium();
                prop_assert!(mixed || batch.iter().all(|&i| inputs[i].medium() == first));
                let text = batch.iter().all(|&i| inputs[i].medium() == Medium::Text);
                prop_assert!(media_together || batch.len() == 1 || text);
            }
        }
    }

    #[test]
    fn requests_are_as_full_as_they_may_be() {
        let inputs = [Input::Text("aaaa"); 7];
        let limits = BatchLimits {
            inputs: 3,
            bytes: 100,
            mixed: false,
            media_together: true,
        };
        let sizes = |limits: &BatchLimits| plan(&inputs, limits).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(&limits), [3, 3, 1]);
        assert_eq!(sizes(&BatchLimits { bytes: 8, ..limits }), [2, 2, 2, 1]);
        assert_eq!(sizes(&BatchLimits { bytes: 3, ..limits }), [1; 7]);
    }
}
