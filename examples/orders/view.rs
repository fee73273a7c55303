use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use nodestorage::bson::DateTime;
use nodestorage::error::BoxError;
use nodestorage::projection::Projection;
use nodestorage::{DocumentId, Event};
use serde::{Deserialize, Serialize};

use crate::events::{OrderEvent, OrderItem};
use crate::order::OrderStatus;

/// An order as customers and staff see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OrderView {
    pub(crate) user_id: String,
    pub(crate) status: OrderStatus,
    pub(crate) total_amount: i64,
    pub(crate) items: Vec<OrderItem>,
    pub(crate) city: String,
    /// The courier that brings it.
    pub(crate) courier: Option<String>,
    pub(crate) cancellation_reason: Option<String>,
    pub(crate) created_at: DateTime,
    pub(crate) updated_at: DateTime,
}

/// Couriers by the first two letters of their tracking numbers.
///
/// Projections are pure functions, of their own tables too: this one can be added to while the program runs
/// only so that the example can show in one go what one mends by an update of the program.
#[derive(Debug, Clone, Default)]
pub(crate) struct Couriers(Arc<Mutex<BTreeMap<String, String>>>);

impl Couriers {
    pub(crate) fn learn(&self, letters: &str, name: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(letters.to_owned(), name.to_owned());
    }

    fn of(&self, tracking_number: &str) -> Result<String, BoxError> {
        let letters = tracking_number.get(..2).unwrap_or_default();
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let courier = known.get(letters).cloned();
        courier.ok_or_else(|| format!("no courier begins its numbers with {letters:?}").into())
    }
}

/// Keeps one view per order.
pub(crate) struct OrderViews {
    pub(crate) couriers: Couriers,
}

impl Projection for OrderViews {
    type View = OrderView;

    fn name(&self) -> &str {
        "order_view"
    }

    fn handles(&self, _event_type: &str, collection: &str) -> bool {
        collection == "orders"
    }

    fn apply(
        &self,
        _: &DocumentId,
        view: Option<OrderView>,
        event: &Event,
    ) -> Result<Option<OrderView>, BoxError> {
        let happened = event.typed()?;
        let Some(mut view) = view else {
            return match happened {
                OrderEvent::OrderCreated {
                    user_id,
                    items,
                    total_amount,
                    shipping_address,
                } => Ok(Some(OrderView {
                    user_id,
                    status: OrderStatus::Pending,
                    total_amount,
                    items,
                    city: shipping_address.city,
                    courier: None,
                    cancellation_reason: None,
                    created_at: event.time(),
                    updated_at: event.time(),
                })),
                _ => Err("an order that was never created".into()),
            };
        };
        match happened {
            OrderEvent::OrderCreated { .. } => return Err("an order that was created twice".into()),
            OrderEvent::OrderItemAdded {
                item,
                new_total_amount,
            } => {
                view.items.push(item);
                view.total_amount = new_total_amount;
            }
            OrderEvent::OrderItemRemoved {
                product_id,
                new_total_amount,
            } => {
                let index = view
                    .items
                    .iter()
                    .position(|item| item.product_id == product_id);
                view.items
                    .remove(index.ok_or("an item that was not there")?);
                view.total_amount = new_total_amount;
            }
            OrderEvent::PaymentCompleted { .. } => view.status = OrderStatus::Paid,
            OrderEvent::ShippingStarted { tracking_number } => {
                view.courier = Some(self.couriers.of(&tracking_number)?);
                view.status = OrderStatus::Shipped;
            }
            OrderEvent::OrderCancelled { reason } => {
                view.cancellation_reason = Some(reason);
                view.status = OrderStatus::Cancelled;
            }
        }
        view.updated_at = event.time();
        Ok(Some(view))
    }
}
