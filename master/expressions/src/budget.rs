//! What evaluation may cost (`apiserver/pkg/apis/cel/config.go`): a few words can loop over what a client sends for hours.
//! The engine counts nothing. So each turn of a loop is made to pay first: as much as its parts are, and what the engine copies
//! of the list or map that the loop makes. So is what is joined, by its size.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators as op,
};
use kube_cel::cel::{Context, ExecutionError, ResolveResult, Value};

use crate::macros::MADE;

/// `PerCallLimit`
const PER_CALL: u64 = 1_000_000;
/// `RuntimeCELCostBudget`: of all that a policy evaluates for one binding.
pub const WHOLE: u64 = 10_000_000;
/// `RuntimeCELCostBudgetMatchConditions`
pub const CONDITIONS: u64 = 2_500_000;
/// How many items are copied for the cost of one.
const COPIES: usize = 16;
/// What is said where one expression costs too much (cel-go).
pub(crate) const EXCEEDED: &str = "operation cancelled: actual cost limit exceeded";
/// How many letters or bytes are joined for the cost of one (cel-go's `StringTraversalCostFactor`).
const LETTERS: usize = 10;
/// What a turn pays with. No expression can call a function of this name.
const SPEND: &str = "@spend";
/// `+`, which pays for what it makes: a text that is joined with itself again and again has no end otherwise.
const ADD: &str = "@add";

/// What is left to be spent, and what the evaluation that goes on has spent of it.
pub(crate) struct Budget {
    left: AtomicU64,
    purse: Arc<Purse>,
}

/// What one evaluation spends.
#[derive(Default)]
struct Purse {
    limit: AtomicU64,
    spent: AtomicU64,
}

impl Purse {
    fn pay(&self, cost: u64) -> Result<(), ExecutionError> {
        let before = self.spent.fetch_add(cost, Ordering::Relaxed);
        match before.saturating_add(cost) <= self.limit.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(ExecutionError::function_error(SPEND, EXCEEDED)),
        }
    }
}

/// What it costs to join a value with another. Items of lists are larger than letters.
fn joined(value: &Value) -> u64 {
    let cost = match value {
        Value::String(text) => text.len().div_ceil(LETTERS),
        Value::Bytes(bytes) => bytes.len().div_ceil(LETTERS),
        Value::List(list) => list.len(),
        _ => 0,
    };
    cost as u64
}

/// Which limit did not suffice.
pub(crate) enum Exceeded {
    /// That of one expression.
    Call,
    /// The budget.
    Whole,
}

impl Budget {
    /// Of evaluations in a context, one after the other.
    pub(crate) fn new(context: &mut Context<'_>) -> Self {
        let purse = Arc::<Purse>::default();
        let payer = Arc::clone(&purse);
        context.add_function(SPEND, move |turn: i64, made: Value| -> ResolveResult {
            let copies = match &made {
                Value::List(list) => list.len() / COPIES,
                Value::Map(map) => map.map.len() / COPIES,
                _ => 0,
            };
            payer.pay(u64::try_from(turn).unwrap_or_default().saturating_add(copies as u64))?;
            Ok(Value::Bool(true))
        });
        let payer = Arc::clone(&purse);
        context.add_function(ADD, move |left: Value, right: Value| -> ResolveResult {
            payer.pay(joined(&left).saturating_add(joined(&right)))?;
            match (left, right) {
                // The engine's values leave this to its parts.
                (Value::Bytes(mut left), Value::Bytes(right)) => {
                    Arc::make_mut(&mut left).extend_from_slice(&right);
                    Ok(Value::Bytes(left))
                }
                (left, right) => left + right,
            }
        });
        Budget { left: AtomicU64::new(WHOLE), purse }
    }

    pub(crate) fn set(&self, cost: u64) {
        self.left.store(cost, Ordering::Relaxed);
    }

    /// Has one evaluation pay.
    pub(crate) fn open(&self) {
        let left = self.left.load(Ordering::Relaxed);
        self.purse.limit.store(left.min(PER_CALL), Ordering::Relaxed);
        self.purse.spent.store(0, Ordering::Relaxed);
    }

    /// Takes what the evaluation has spent.
    pub(crate) fn close(&self) -> Result<(), Exceeded> {
        let (limit, spent) = (self.purse.limit.load(Ordering::Relaxed), self.purse.spent.load(Ordering::Relaxed));
        self.set(self.left.load(Ordering::Relaxed).saturating_sub(spent));
        match spent {
            fine if fine <= limit => Ok(()),
            _ if limit == PER_CALL => Err(Exceeded::Call),
            _ => Err(Exceeded::Whole),
        }
    }
}

/// Has each turn of a loop pay.
pub(crate) fn charge(looped: &mut ComprehensionExpr) {
    let turn = parts(&looped.loop_cond) + parts(&looped.loop_step);
    let grows = matches!(looped.accu_init.expr, Expr::List(_) | Expr::Map(_));
    let made = if grows { Expr::Ident(looped.accu_var.clone()) } else { Expr::Literal(LiteralValue::Null) };
    let pay = call(SPEND, vec![of(Expr::Literal(LiteralValue::Int(turn.into()))), of(made)]);
    let going_on = std::mem::take(&mut looped.loop_cond);
    looped.loop_cond = of(call(op::LOGICAL_AND, vec![of(pay), going_on]));
}

/// Has a call of `+` pay; a loop has paid for what it adds to what it makes.
pub(crate) fn price(call: &mut CallExpr) {
    let is_loops = matches!(call.args.first(), Some(IdedExpr { expr: Expr::Ident(name), .. }) if name == MADE);
    if call.func_name == op::ADD && !is_loops {
        call.func_name = ADD.to_owned();
    }
}

fn of(expr: Expr) -> IdedExpr {
    IdedExpr { id: 0, expr }
}

fn call(function: &str, args: Vec<IdedExpr>) -> Expr {
    Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args })
}

/// How many parts an expression has. The turns of loops inside it pay for themselves.
fn parts(expression: &IdedExpr) -> i64 {
    let all = |list: &[IdedExpr]| list.iter().map(parts).sum::<i64>();
    1 + match &expression.expr {
        Expr::Call(call) => call.target.as_deref().map_or(0, parts) + all(&call.args),
        Expr::Comprehension(inner) => parts(&inner.iter_range) + parts(&inner.accu_init) + parts(&inner.result),
        Expr::List(list) => all(&list.elements),
        Expr::Map(map) => map.entries.iter().map(|entry| entry_parts(&entry.expr)).sum(),
        Expr::Struct(made) => made.entries.iter().map(|entry| entry_parts(&entry.expr)).sum(),
        Expr::Select(select) => parts(&select.operand),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => 0,
    }
}

fn entry_parts(entry: &EntryExpr) -> i64 {
    match entry {
        EntryExpr::MapEntry(entry) => parts(&entry.key) + parts(&entry.value),
        EntryExpr::StructField(field) => parts(&field.value),
    }
}
