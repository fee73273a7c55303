use serde::{Deserialize, Serialize};

/// Something that was ordered. Prices are in cents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OrderItem {
    pub(crate) product_id: String,
    pub(crate) product_name: String,
    pub(crate) quantity: u32,
    pub(crate) unit_price: i64,
    pub(crate) total_price: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ShippingAddress {
    pub(crate) street: String,
    pub(crate) city: String,
    pub(crate) zip_code: String,
    pub(crate) country: String,
}

/// What can happen to an order. Each event says what its readers need, the new total for example, so that
/// none of them has to work it out again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum OrderEvent {
    OrderCreated {
        user_id: String,
        items: Vec<OrderItem>,
        total_amount: i64,
        shipping_address: ShippingAddress,
    },
    OrderItemAdded {
        item: OrderItem,
        new_total_amount: i64,
    },
    OrderItemRemoved {
        product_id: String,
        new_total_amount: i64,
    },
    PaymentCompleted {
        payment_id: String,
    },
    ShippingStarted {
        tracking_number: String,
    },
    OrderCancelled {
        reason: String,
    },
}
