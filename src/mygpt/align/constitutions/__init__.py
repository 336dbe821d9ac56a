"""Package data: the constitutions that come with mygpt, one YAML file each, read by `align/constitution`. The texts are our own."""
