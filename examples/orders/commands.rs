use nodestorage::command::DomainCommand;
use serde::{Deserialize, Serialize};

use crate::events::{OrderItem, ShippingAddress};
use crate::order::{Order, OrderStatus};

/// Something to be ordered; what it costs in all is the order's business.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NewItem {
    pub(crate) product_id: String,
    pub(crate) product_name: String,
    pub(crate) quantity: u32,
    pub(crate) unit_price: i64,
}

/// What can be asked of an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum OrderCommand {
    CreateOrder {
        user_id: String,
        items: Vec<NewItem>,
        shipping_address: ShippingAddress,
    },
    AddOrderItem {
        item: NewItem,
    },
    RemoveOrderItem {
        product_id: String,
    },
    CompletePayment {
        payment_id: String,
    },
    StartShipping {
        tracking_number: String,
    },
    CancelOrder {
        reason: String,
    },
}

impl DomainCommand for OrderCommand {
    type Aggregate = Order;
}

/// Why an order refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OrderError {
    #[error("there is no such order")]
    Unknown,
    #[error("an order needs at least one item")]
    NoItems,
    #[error("an item needs a quantity, and a price that can be paid")]
    BadItem,
    #[error("the order has no item {0}")]
    NoSuchItem(String),
    #[error("{what} needs a {wanted} order, and this one is {found}")]
    Status {
        what: &'static str,
        wanted: OrderStatus,
        found: OrderStatus,
    },
    #[error("an order that is {0} cannot be cancelled")]
    NotCancellable(OrderStatus),
}

impl NewItem {
    pub(crate) fn priced(&self) -> Result<OrderItem, OrderError> {
        if self.quantity == 0 || self.unit_price < 0 {
            return Err(OrderError::BadItem);
        }
        let total = self.unit_price.checked_mul(i64::from(self.quantity));
        Ok(OrderItem {
            product_id: self.product_id.clone(),
            product_name: self.product_name.clone(),
            quantity: self.quantity,
            unit_price: self.unit_price,
            total_price: total.ok_or(OrderError::BadItem)?,
        })
    }
}
