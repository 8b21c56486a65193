//! The framed service and the one of the `.proto` file are the same on the wire.

use std::collections::BTreeSet;

use prost::Message as _;

#[test]
fn both_services_have_the_same_methods() {
    let descriptors = prost_types::FileDescriptorSet::decode(ledger_proto::DESCRIPTORS).unwrap();
    let services = descriptors.file.iter().flat_map(|file| &file.service);
    let ledger = services.into_iter().find(|service| service.name() == "Ledger").unwrap();
    let published: BTreeSet<_> = ledger
        .method
        .iter()
        .map(|method| (method.name().to_owned(), method.client_streaming(), method.server_streaming()))
        .collect();
    let framed = [
        ("Submit", false, false),
        ("SubmitBatch", false, false),
        ("SubmitStream", true, true),
        ("GetProduct", false, false),
        ("GetOffers", false, false),
        ("ListProducts", false, false),
        ("ListSales", false, false),
        ("GetReservation", false, false),
        ("Explain", false, false),
        ("Watch", false, true),
        ("GetRouting", false, false),
    ];
    assert_eq!(published, framed.map(|(name, up, down)| (name.to_owned(), up, down)).into_iter().collect());
    assert_eq!(ledger_proto::framed::ledger_server::SERVICE_NAME, "holdfast.v1.Ledger");
}
