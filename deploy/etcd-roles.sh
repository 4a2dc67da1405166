#!/bin/sh
# Users and roles for netagent in etcd: see docs/security.md. Repeating a call does no harm.
#
#   etcd-roles.sh operator               user netagent-operator, for `host rm` and the like: all of netagent's keys
#   etcd-roles.sh host UUID < PASSWORD   user netagent-UUID, for the agent of one host: what is its own, and claims
#
# etcdctl takes endpoints, certificates and root's password from its own environment (ETCDCTL_ENDPOINTS, ETCDCTL_USER…).
# Users are made with the password on standard input. They count once `etcdctl auth enable` was called.
set -eu
export ETCDCTL_API=3
root=/netagent

ensure_role() {
    etcdctl role get "$1" >/dev/null 2>&1 || etcdctl role add "$1"
}

ensure_user() {
    user=$1
    shift
    etcdctl user get "$user" >/dev/null 2>&1 || etcdctl user add --interactive=false "$user"
    for role in "$@"; do
        etcdctl user grant-role "$user" "$role"
    done
}

grant() {
    role=$1 kind=$2 key=$3
    shift 3
    etcdctl role grant-permission "$role" "$kind" "$key" "$@" >/dev/null
}

shared_role() {
    ensure_role netagent-shared
    grant netagent-shared read "$root/v1/" --prefix
    # Claims exclude each other by transactions: any host may be the one to make, or to end, any of these.
    for claims in blocks addresses networks numbers gone; do
        grant netagent-shared readwrite "$root/v1/$claims/" --prefix
    done
    grant netagent-shared readwrite "$root/v1/generation"
}

case "${1-} $#" in
"operator 1")
    ensure_role netagent-operator
    grant netagent-operator readwrite "$root/" --prefix
    ensure_user netagent-operator netagent-operator
    ;;
"host 2")
    uuid=$2
    shared_role
    ensure_role "netagent-$uuid"
    for key in hosts live removed; do
        grant "netagent-$uuid" readwrite "$root/v1/$key/$uuid"
    done
    grant "netagent-$uuid" readwrite "$root/v1/endpoints/$uuid/" --prefix
    grant "netagent-$uuid" readwrite "$root/transactions/$uuid/" --prefix
    ensure_user "netagent-$uuid" netagent-shared "netagent-$uuid"
    ;;
*)
    echo "usage: $0 operator | host UUID, with the new user's password on standard input" >&2
    exit 2
    ;;
esac
