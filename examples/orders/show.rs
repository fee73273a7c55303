use nodestorage::Stored;
use nodestorage::query::Paged;

use crate::view::OrderView;

pub(crate) fn print_page(what: &str, page: Paged<Stored<OrderView>>) {
    println!(
        "{what}: page {} of {}, {} orders",
        page.page, page.pages, page.total
    );
    for order in &page.items {
        println!("  {}", line(order));
    }
}

pub(crate) fn line(order: &Stored<OrderView>) -> String {
    let at = order.created_at.try_to_rfc3339_string().unwrap_or_default();
    let courier = order
        .courier
        .as_deref()
        .map_or(String::new(), |name| format!(", by {name}"));
    format!(
        "{} {at} {} {} cents{courier}",
        order.id(),
        order.status,
        order.total_amount
    )
}
