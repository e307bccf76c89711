use serde_json::json;

use super::*;

fn user(id: &str, name: &str, since: i64, roles: &[&str]) -> User {
    User {
        id: id.to_owned(),
        username: name.to_owned(),
        username_at: since,
        active: true,
        roles: roles.iter().map(ToString::to_string).collect(),
        ..User::default()
    }
}

fn holding(users: &[User]) -> Directory {
    let mut directory = Directory::default();
    for user in users {
        directory.apply(USERS, &user.id, Some(&user.document()));
    }
    directory.apply(ROLES, "ops", Some(&json!({"name": "Ops", "name_at": 1, "permissions": {"0": true, "12": true}})));
    directory
}

fn ops() -> Permissions {
    [Permission::ManageUsers, Permission::ClusterInfo].into_iter().collect()
}

#[test]
fn the_order_in_which_documents_come_does_not_matter() {
    let (ann, other) = (user("1", "ann", 5, &[]), user("2", "Ann", 4, &[]));
    let one = holding(&[ann.clone(), other.clone()]);
    let two = holding(&[other.clone(), user("1", "anna", 1, &[]), ann.clone()]);
    assert_eq!(one, two);
    assert_eq!(one.username(&ann), "ann~1");
    assert_eq!(one.username(&other), "Ann");
    assert_eq!(one.find_user("ann").map(|user| user.id.as_str()), Some("2"));
    assert_eq!(one.find_user("ann~1").map(|user| user.id.as_str()), Some("1"));
    assert_eq!(one.misnamed().map(|user| user.id.as_str()).collect::<Vec<_>>(), ["1"]);
}

#[test]
fn a_deleted_user_is_gone_whatever_was_written_to_it_meanwhile() {
    let mut directory = holding(&[user("1", "ann", 1, &[])]);
    directory.apply(USERS, "1", Some(&json!({"username": "ann", "deleted_at": 2, "active": true})));
    assert_eq!(directory, holding(&[]));
    assert_eq!(directory.find_user("ann"), None);
}

#[test]
fn a_name_that_somebody_has_is_refused() {
    let directory = holding(&[user("1", "ann", 1, &[]), user("2", "bob", 1, &[])]);
    let taken = Refusal::Taken { kind: "user name", name: "ANN".to_owned() };
    assert_eq!(directory.check_new_user(Permissions::all(), &user("3", "ANN", 9, &[])), Err(taken.clone()));
    let bob = directory.user("2").unwrap();
    assert_eq!(directory.check_user_change(Permissions::all(), false, bob, &user("2", "ANN", 9, &[])), Err(taken));
    assert_eq!(directory.check_user_change(Permissions::all(), false, bob, &user("2", "Bob", 9, &[])), Ok(()));
}

#[test]
fn nobody_gives_or_takes_what_they_do_not_have() {
    let directory = holding(&[user("1", "ann", 1, &[ADMINISTRATOR]), user("2", "bob", 1, &["ops"])]);
    let (ann, bob) = (directory.user("1").unwrap(), directory.user("2").unwrap());
    assert_eq!(directory.permissions(bob), ops());
    let above = |result: Result<(), Refusal>| matches!(result, Err(Refusal::AboveYou(_)));
    assert!(above(directory.check_new_user(ops(), &user("3", "eve", 1, &[ADMINISTRATOR]))));
    assert_eq!(directory.check_new_user(ops(), &user("3", "eve", 1, &["ops"])), Ok(()));
    assert!(above(directory.check_user_change(ops(), false, ann, &User { email: "e@e".to_owned(), ..ann.clone() })));
    assert!(above(directory.check_user_change(ops(), true, bob, &user("2", "bob", 1, &[ADMINISTRATOR, "ops"]))));
    assert!(above(directory.check_user_deletion(ops(), ann)));
    let more = Role { id: "ops".to_owned(), name: "Ops".to_owned(), permissions: ["5".to_owned()].into(), name_at: 1 };
    assert!(above(directory.check_role(ops(), &more)));
    assert_eq!(directory.check_new_user(ops(), &user("3", "eve", 1, &["none"])), Err(Refusal::Unknown("role")));
}

#[test]
fn the_last_administrator_stays() {
    let mut directory = holding(&[user("1", "ann", 1, &[ADMINISTRATOR]), user("2", "bob", 1, &[ADMINISTRATOR])]);
    let ann = directory.user("1").unwrap().clone();
    let all = Permissions::all();
    assert_eq!(directory.check_user_deletion(all, &ann), Ok(()));
    directory.apply(USERS, "2", Some(&User { active: false, ..user("2", "bob", 1, &[ADMINISTRATOR]) }.document()));
    assert_eq!(directory.check_user_deletion(all, &ann), Err(Refusal::LastAdministrator));
    for lesser in [user("1", "ann", 1, &[]), User { active: false, ..ann.clone() }] {
        assert_eq!(directory.check_user_change(all, true, &ann, &lesser), Err(Refusal::LastAdministrator));
    }
    assert_eq!(directory.check_user_change(all, true, &ann, &User { zone: "au".to_owned(), ..ann.clone() }), Ok(()));
}

#[test]
fn the_role_of_administrators_is_nobodys_document() {
    let mut directory = holding(&[]);
    directory.apply(ROLES, ADMINISTRATOR, Some(&json!({"name": "Weak", "permissions": {}})));
    assert_eq!(directory.role(ADMINISTRATOR).unwrap().allows(), Permissions::all());
    assert_eq!(directory.check_role(Permissions::all(), &Role::administrator()), Err(Refusal::BuiltIn));
    let look_alike = Role { id: "x".to_owned(), name: "administrator".to_owned(), ..Role::default() };
    assert!(matches!(directory.check_role(Permissions::all(), &look_alike), Err(Refusal::Taken { .. })));
}

#[test]
fn a_revoked_token_leaves_the_list() {
    let mut directory = Directory::default();
    let token = Token { id: "t".to_owned(), user: "1".to_owned(), name: "x".to_owned(), ..Token::default() };
    directory.apply(TOKENS, "t", Some(&token.document()));
    assert_eq!(directory.tokens_of("1").count(), 1);
    let mut value = token.document();
    value["revoked_at"] = 3.into();
    directory.apply(TOKENS, "t", Some(&value));
    assert_eq!(directory, Directory::default());
}
