use std::fmt;

use nodestorage::aggregate::{Aggregate, DecideContext};
use serde::{Deserialize, Serialize};

use crate::commands::{OrderCommand, OrderError};
use crate::events::{OrderEvent, OrderItem, ShippingAddress};

/// An order, from its events.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) user_id: String,
    pub(crate) items: Vec<OrderItem>,
    pub(crate) total_amount: i64,
    pub(crate) status: OrderStatus,
    shipping_address: Option<ShippingAddress>,
    payment_id: Option<String>,
    tracking_number: Option<String>,
    cancellation_reason: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum OrderStatus {
    #[default]
    Pending,
    Paid,
    Shipped,
    Cancelled,
}

impl OrderStatus {
    /// As it is stored.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Paid => "PAID",
            Self::Shipped => "SHIPPED",
            Self::Cancelled => "CANCELLED",
        }
    }
}

impl fmt::Display for OrderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Aggregate for Order {
    const TYPE: &'static str = "Order";
    const COLLECTION: &'static str = "orders";
    type Command = OrderCommand;
    type Event = OrderEvent;
    type Error = OrderError;

    fn decide(
        &self,
        command: &OrderCommand,
        ctx: &DecideContext,
    ) -> Result<Vec<OrderEvent>, OrderError> {
        let event = match command {
            OrderCommand::CreateOrder {
                user_id,
                items,
                shipping_address,
            } => {
                let items: Vec<_> = items
                    .iter()
                    .map(|item| item.priced())
                    .collect::<Result<_, _>>()?;
                if items.is_empty() {
                    return Err(OrderError::NoItems);
                }
                let total = items
                    .iter()
                    .try_fold(0_i64, |total, item| total.checked_add(item.total_price));
                OrderEvent::OrderCreated {
                    user_id: user_id.clone(),
                    items,
                    total_amount: total.ok_or(OrderError::BadItem)?,
                    shipping_address: shipping_address.clone(),
                }
            }
            _ if !ctx.exists() => return Err(OrderError::Unknown),
            OrderCommand::AddOrderItem { item } => {
                self.must_be(OrderStatus::Pending, "adding an item")?;
                let item = item.priced()?;
                let total = self.total_amount.checked_add(item.total_price);
                OrderEvent::OrderItemAdded {
                    item,
                    new_total_amount: total.ok_or(OrderError::BadItem)?,
                }
            }
            OrderCommand::RemoveOrderItem { product_id } => {
                self.must_be(OrderStatus::Pending, "removing an item")?;
                let item = self
                    .items
                    .iter()
                    .find(|item| item.product_id == *product_id);
                let item = item.ok_or_else(|| OrderError::NoSuchItem(product_id.clone()))?;
                OrderEvent::OrderItemRemoved {
                    product_id: product_id.clone(),
                    new_total_amount: self.total_amount - item.total_price,
                }
            }
            OrderCommand::CompletePayment { payment_id } => {
                self.must_be(OrderStatus::Pending, "paying")?;
                OrderEvent::PaymentCompleted {
                    payment_id: payment_id.clone(),
                }
            }
            OrderCommand::StartShipping { tracking_number } => {
                self.must_be(OrderStatus::Paid, "shipping")?;
                OrderEvent::ShippingStarted {
                    tracking_number: tracking_number.clone(),
                }
            }
            OrderCommand::CancelOrder { reason } => match self.status {
                OrderStatus::Pending | OrderStatus::Paid => OrderEvent::OrderCancelled {
                    reason: reason.clone(),
                },
                status => return Err(OrderError::NotCancellable(status)),
            },
        };
        Ok(vec![event])
    }

    fn apply(state: Option<Self>, event: &OrderEvent) -> Self {
        let mut order = state.unwrap_or_default();
        match event.clone() {
            OrderEvent::OrderCreated {
                user_id,
                items,
                total_amount,
                shipping_address,
            } => {
                order.user_id = user_id;
                order.items = items;
                order.total_amount = total_amount;
                order.shipping_address = Some(shipping_address);
            }
            OrderEvent::OrderItemAdded {
                item,
                new_total_amount,
            } => {
                order.items.push(item);
                order.total_amount = new_total_amount;
            }
            OrderEvent::OrderItemRemoved {
                product_id,
                new_total_amount,
            } => {
                // One line of it: the same product may stand there twice.
                let is_it = |item: &OrderItem| item.product_id == product_id;
                if let Some(index) = order.items.iter().position(is_it) {
                    order.items.remove(index);
                }
                order.total_amount = new_total_amount;
            }
            OrderEvent::PaymentCompleted { payment_id } => {
                order.payment_id = Some(payment_id);
                order.status = OrderStatus::Paid;
            }
            OrderEvent::ShippingStarted { tracking_number } => {
                order.tracking_number = Some(tracking_number);
                order.status = OrderStatus::Shipped;
            }
            OrderEvent::OrderCancelled { reason } => {
                order.cancellation_reason = Some(reason);
                order.status = OrderStatus::Cancelled;
            }
        }
        order
    }

    fn creates(command: &OrderCommand) -> bool {
        matches!(command, OrderCommand::CreateOrder { .. })
    }
}

impl Order {
    fn must_be(&self, wanted: OrderStatus, what: &'static str) -> Result<(), OrderError> {
        match self.status == wanted {
            true => Ok(()),
            false => Err(OrderError::Status {
                what,
                wanted,
                found: self.status,
            }),
        }
    }
}
