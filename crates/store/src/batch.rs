use crate::store::{MAX_CHANGES_PER_TRANSACTION, MAX_TRANSACTION_BYTES};
use crate::{ProposeError, Store, Transaction, UpdateError};

/// What became of a batch's items.
#[derive(Debug, PartialEq, Eq)]
pub struct BatchOutcome<I, E> {
    /// How many items were committed.
    pub committed: usize,
    /// Items whose closure refused. Nothing of them was written. A premise that no longer holds is
    /// an everyday thing: the decision was made on an older snapshot.
    pub rejected: Vec<(I, E)>,
    /// Why the rest was not even tried, if so.
    pub failed: Option<ProposeError>,
}

impl Store {
    /// Applies many small changes in as few transactions as their limits allow. Each item is atomic;
    /// different items may land in different transactions, with others' in between.
    ///
    /// If a transaction fails, its items and all later ones are not done (`failed` says why).
    pub async fn batch<I, E>(
        &self,
        items: impl IntoIterator<Item = I>,
        mut each: impl FnMut(&mut Transaction, &I) -> Result<(), E>,
    ) -> BatchOutcome<I, E> {
        let mut items = items.into_iter().peekable();
        let mut outcome = BatchOutcome {
            committed: 0,
            rejected: Vec::new(),
            failed: None,
        };
        while items.peek().is_some() {
            let mut accepted = 0;
            let mut rejected = Vec::new();
            let result = self
                .update(|transaction| {
                    while !is_full(transaction) {
                        let Some(item) = items.next() else { break };
                        let before = transaction.savepoint();
                        match each(transaction, &item) {
                            Ok(()) => accepted += 1,
                            Err(error) => {
                                transaction.roll_back(before);
                                rejected.push((item, error));
                            }
                        }
                    }
                    Ok::<_, std::convert::Infallible>(())
                })
                .await;
            match result {
                Ok(()) => {
                    outcome.committed += accepted;
                    outcome.rejected.append(&mut rejected);
                }
                Err(UpdateError::Propose(error)) => {
                    outcome.failed = Some(error);
                    break;
                }
                Err(UpdateError::Rejected(never)) => match never {},
            }
        }
        outcome
    }
}

/// Some room is left, because an item may write several objects.
fn is_full(transaction: &Transaction) -> bool {
    transaction.changes() >= MAX_CHANGES_PER_TRANSACTION
        || transaction.bytes() >= MAX_TRANSACTION_BYTES / 4 * 3
}
