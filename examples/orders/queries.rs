use nodestorage::error::BoxError;
use nodestorage::projection::Views;
use nodestorage::query::{PageRequest, Paged, Query, QueryDispatcher, QueryHandler};
use nodestorage::{Order, Result, Stored};

use crate::order::OrderStatus;
use crate::view::OrderView;

/// One order.
#[derive(Debug)]
pub(crate) struct GetOrder {
    pub(crate) order_id: String,
}

impl Query for GetOrder {
    type Output = Option<Stored<OrderView>>;
}

/// A customer's orders, newest first, perhaps only those in one status.
#[derive(Debug)]
pub(crate) struct GetUserOrders {
    pub(crate) user_id: String,
    pub(crate) status: Option<OrderStatus>,
    pub(crate) page: PageRequest,
}

impl Query for GetUserOrders {
    type Output = Paged<Stored<OrderView>>;
}

/// Everybody's orders in one status, newest first.
#[derive(Debug)]
pub(crate) struct GetOrdersByStatus {
    pub(crate) status: OrderStatus,
    pub(crate) page: PageRequest,
}

impl Query for GetOrdersByStatus {
    type Output = Paged<Stored<OrderView>>;
}

/// Answers from the views alone.
#[derive(Clone)]
struct Orders(Views<OrderView>);

impl QueryHandler<GetOrder> for Orders {
    async fn handle(&self, query: GetOrder) -> Result<Option<Stored<OrderView>>, BoxError> {
        Ok(self.0.find(query.order_id).await?)
    }
}

impl QueryHandler<GetUserOrders> for Orders {
    async fn handle(&self, query: GetUserOrders) -> Result<Paged<Stored<OrderView>>, BoxError> {
        let mut wanted = nodestorage::Query::new().equal("user_id", query.user_id);
        if let Some(status) = query.status {
            wanted = wanted.equal("status", status.as_str());
        }
        let newest_first = wanted.sort("created_at", Order::Descending);
        Ok(self.0.page(&newest_first, query.page).await?)
    }
}

impl QueryHandler<GetOrdersByStatus> for Orders {
    async fn handle(&self, query: GetOrdersByStatus) -> Result<Paged<Stored<OrderView>>, BoxError> {
        let newest_first = nodestorage::Query::new()
            .equal("status", query.status.as_str())
            .sort("created_at", Order::Descending);
        Ok(self.0.page(&newest_first, query.page).await?)
    }
}

/// Knows who answers what.
pub(crate) fn queries(views: Views<OrderView>) -> Result<QueryDispatcher> {
    let orders = Orders(views);
    Ok(QueryDispatcher::builder()
        .handler::<GetOrder, _>(orders.clone())?
        .handler::<GetUserOrders, _>(orders.clone())?
        .handler::<GetOrdersByStatus, _>(orders)?
        .build())
}
