"""The two services: a town's node (`town_node`) and the association's hub (`hub`). They meet only on the bus and over HTTPS."""
