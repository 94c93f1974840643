# /etc/dovecot/postrider.sieve; compile it by `sievec /etc/dovecot/postrider.sieve`. A user who may write Sieve
# scripts needs no more than: require "copy"; redirect :copy "alice@push.example.org";
require ["copy", "envelope", "variables"];

if envelope :matches "to" "*@example.org" {
  redirect :copy "${1}@push.example.org";
}
